-- pg_cron's entries. Ours are told by three things together: who owns them, how they are called, and exactly what they command.

CREATE OR REPLACE FUNCTION jobmanager.command_of(_entry text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- Never anybody's text: the name, which is a hash.
  SELECT CASE
    WHEN _entry = 'jm_sweep' THEN format('CALL jobmanager.sweep_minute(%s)', (SELECT min(passes) FROM jobmanager.tickers))
    WHEN _entry = 'jm_http' THEN 'CALL jobmanager.fire_http(NULL)'
    WHEN _entry = 'jm_dispatch' THEN 'SELECT jobmanager.fire(NULL)'
    ELSE format('SELECT jobmanager.fire(%L)', _entry) END
$$;

-- The result for one entry is looked up: the trigger on jobs asks for each row, and no session could add a thousand jobs to ten
-- thousand otherwise. That needs plans made for the argument, which PL/pgSQL makes.
DROP FUNCTION IF EXISTS jobmanager.wanted_entries(), jobmanager.our_entries(), jobmanager.our_entries(text);

CREATE OR REPLACE FUNCTION jobmanager.wanted_entries(_entry text DEFAULT NULL) RETURNS TABLE (name text, schedule text, command text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT wanted.name, wanted.schedule, jobmanager.command_of(wanted.name) FROM (
    SELECT 'jm_sweep' AS name, '* * * * *' AS schedule WHERE EXISTS (SELECT FROM jobmanager.tickers)
    UNION ALL SELECT 'jm_http', '* * * * *' WHERE EXISTS (SELECT FROM jobmanager.tickers WHERE transport = 'http')
    UNION ALL SELECT 'jm_dispatch', '* * * * *'
      WHERE EXISTS (SELECT FROM jobmanager.tickers WHERE layout = 'dispatcher' AND transport <> 'http')
    UNION ALL SELECT jobmanager.entry_name(j.id), s.wakeup FROM jobmanager.jobs j
      JOIN jobmanager.tickers t ON t.namespace = j.namespace AND t.layout = 'entries' AND t.transport <> 'http'
      JOIN jobmanager.schedules s ON s.schedule = j.schedule WHERE j.state = 'active' AND j.next_due_at IS NOT NULL) wanted
   WHERE (_entry IS NULL OR wanted.name = _entry) AND wanted.name NOT IN (SELECT p.name FROM jobmanager.paused_entries p);
END $$;

CREATE OR REPLACE FUNCTION jobmanager.cron_host() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- The host that pg_cron writes into a new entry, to log in there when it is due; NULL where our role may not read the setting.
  SELECT setting FROM pg_settings WHERE name = 'cron.host'
$$;

CREATE OR REPLACE FUNCTION jobmanager.our_entries(_entry text DEFAULT NULL, _host text DEFAULT NULL)
RETURNS TABLE (name text, schedule text, command text, active boolean, place text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- `place`: where an entry fires if not here, '' if here. A restore, a move and ALTER DATABASE RENAME leave entries as they were.
DECLARE
  host text := coalesce(_host, jobmanager.cron_host());
BEGIN
  IF NOT jobmanager.has_table('cron', 'job') THEN
    RETURN;
  END IF;
  RETURN QUERY SELECT c.jobname::text, c.schedule::text, c.command::text, c.active, CASE
      WHEN c.database <> current_database() THEN 'of another database'
      WHEN c.nodeport <> current_setting('port')::int OR c.nodename <> host THEN 'of another server' ELSE '' END
    FROM cron.job c WHERE (_entry IS NULL OR c.jobname = _entry) AND c.username = current_user
      AND c.jobname ~ '^jm_([0-9a-f]{24}|dispatch|sweep|http)$'
      AND (c.command = jobmanager.command_of(c.jobname::text) OR c.command ~ '^CALL jobmanager\.sweep_minute\(\d\)$');
END $$;

CREATE OR REPLACE FUNCTION jobmanager.host_is_unsure() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- Return whether entries of ours name a host, and our role may not read whether that is this server.
BEGIN
  RETURN jobmanager.cron_host() IS NULL AND EXISTS (SELECT FROM cron.job c WHERE c.username = current_user AND c.jobname ~ '^jm_'
    AND c.nodename !~ '^(localhost|127\.|::1|/|$)');
END $$;

CREATE OR REPLACE FUNCTION jobmanager.host_of_new_entries() RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- As cron_host; where it matters and may not be read, by an entry that is taken back at once.
DECLARE
  probe text := 'jm_probe_' || gen_random_uuid();
  host text := jobmanager.cron_host();
BEGIN
  IF jobmanager.host_is_unsure() THEN
    PERFORM cron.schedule(probe, '0 0 1 1 *', 'SELECT 1');
    SELECT c.nodename INTO host FROM cron.job c WHERE c.jobname = probe AND c.username = current_user;
    RAISE SQLSTATE 'JM001';
  END IF;
  RETURN host;
EXCEPTION WHEN SQLSTATE 'JM001' THEN
  RETURN host;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.sync_entries(_entry text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Make pg_cron's entries what they should be, of all jobs or of one; return what was changed. One at a time: pg_cron fails
-- when many sessions schedule at once. An entry that is right is not touched, and no foreign one ever.
-- One that fires elsewhere goes first, as one that is not active: scheduled again it would stay so.
DECLARE
  made int := 0;
  gone int := 0;
  host text;
BEGIN
  IF NOT jobmanager.has_table('cron', 'job') THEN
    RETURN jsonb_build_object('scheduled', 0, 'unscheduled', 0, 'elsewhere', true);
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('jobmanager.sync', 0));
  host := CASE WHEN _entry IS NULL THEN jobmanager.host_of_new_entries() ELSE jobmanager.cron_host() END;
  SELECT count(cron.unschedule(o.name)) INTO gone FROM jobmanager.our_entries(_entry, host) o
    LEFT JOIN jobmanager.wanted_entries(_entry) w USING (name) WHERE w.name IS NULL OR NOT o.active OR o.place <> '';
  SELECT count(cron.schedule(w.name, w.schedule, w.command)) INTO made FROM jobmanager.wanted_entries(_entry) w
    LEFT JOIN jobmanager.our_entries(_entry, host) o USING (name)
   WHERE o.name IS NULL OR (o.schedule, o.command) IS DISTINCT FROM (w.schedule, w.command);
  RETURN jsonb_build_object('scheduled', made, 'unscheduled', gone);
END $$;
