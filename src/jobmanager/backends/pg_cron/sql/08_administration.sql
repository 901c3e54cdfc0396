-- For operators and the command line: one call each. No secret is shown: commands are constants, foreign ones are not returned.

CREATE OR REPLACE FUNCTION jobmanager.redacted(_text text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
-- To the closing quote: a token may hold + / = ~ and :.
  SELECT regexp_replace(regexp_replace(_text, '((?:bearer|basic)\s+)[^''"]+', '\1***', 'gi'),
    '((?:secret|token|password|passwd|apikey|api_key|authorization)["'']?\s*(?:=>|:=|=|:)\s*["'']?)[^''"&]+', '\1***', 'gi')
$$;

CREATE OR REPLACE FUNCTION jobmanager.list_entries()
RETURNS TABLE (name text, job_id text, schedule text, command text, active boolean, orphan boolean, drift text, next_due_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT name, j.id, coalesce(o.schedule, w.schedule, '* * * * *'),
        jobmanager.redacted(coalesce(o.command, w.command, jobmanager.command_of(name))),
        coalesce(o.active, false), w.name IS NULL AND p.name IS NULL,
        CASE WHEN p.name IS NOT NULL THEN 'paused' WHEN w.name IS NULL THEN 'of no job' WHEN o.name IS NULL THEN 'not in pg_cron'
          WHEN o.place <> '' THEN o.place WHEN NOT o.active THEN 'switched off' WHEN o.schedule <> w.schedule THEN 'scheduled differently'
          WHEN o.command <> w.command THEN 'commands something else' ELSE '' END,
        j.next_due_at
      FROM jobmanager.our_entries() o FULL JOIN jobmanager.wanted_entries() w USING (name)
      FULL JOIN jobmanager.paused_entries p USING (name)
      LEFT JOIN jobmanager.jobs j ON jobmanager.entry_name(j.id) = name ORDER BY 1;
EXCEPTION WHEN undefined_table OR invalid_schema_name OR insufficient_privilege THEN
  RETURN QUERY
    SELECT name, j.id, coalesce(w.schedule, '* * * * *'), coalesce(w.command, jobmanager.command_of(name)), false, false,
        CASE WHEN p.name IS NOT NULL THEN 'paused' ELSE 'not in pg_cron' END, j.next_due_at
      FROM jobmanager.wanted_entries() w FULL JOIN jobmanager.paused_entries p USING (name)
      LEFT JOIN jobmanager.jobs j ON jobmanager.entry_name(j.id) = name ORDER BY 1;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.entry_outcomes()
RETURNS TABLE (name text, runs bigint, succeeded bigint, status text, error text, ended_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- How the wake-ups of our entries ended in the last day, and the newest of each: by pg_cron's notes, of which the newest are read, for
-- they have no index but their number.
BEGIN
  RETURN QUERY WITH ended AS MATERIALIZED (
    SELECT d.jobid, d.runid, d.status, d.return_message, d.end_time FROM cron.job_run_details d
     WHERE d.runid > (SELECT max(runid) - 100000 FROM cron.job_run_details) AND d.status IN ('succeeded', 'failed')
       AND d.start_time > clock_timestamp() - interval '24 hours')
  SELECT c.jobname::text, count(*), count(*) FILTER (WHERE e.status = 'succeeded'), (array_agg(e.status ORDER BY e.runid DESC))[1],
      (array_agg(CASE WHEN e.status = 'failed' THEN left(jobmanager.redacted(e.return_message), 300) END ORDER BY e.runid DESC))[1],
      max(e.end_time)
    FROM ended e JOIN cron.job c USING (jobid)
   WHERE c.jobname ~ '^jm_' AND c.username = current_user AND c.database = current_database() GROUP BY c.jobname;
EXCEPTION WHEN undefined_table OR invalid_schema_name OR insufficient_privilege THEN
  RETURN;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.stats() RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Numbers of the last day from our own ledger: pg_cron calls a wake-up a success whose call never arrived.
DECLARE
  found jsonb;
  rows bigint;
BEGIN
  SELECT jsonb_build_object('entries', count(*), 'active', count(*) FILTER (WHERE active), 'orphans', count(*) FILTER (WHERE orphan))
    INTO found FROM jobmanager.list_entries();
  found := found || (SELECT jsonb_build_object('runs_24h', count(*), 'succeeded_24h', count(*) FILTER (WHERE status = 'succeeded'),
      'failed_24h', count(*) FILTER (WHERE status = 'failed'), 'missed_24h', count(*) FILTER (WHERE status = 'missed'))
    FROM jobmanager.runs WHERE opened_at > clock_timestamp() - interval '24 hours');
  found := found || (SELECT jsonb_build_object('calls_24h', count(*), 'accepted_24h', count(*) FILTER (WHERE outcome = 'accepted'),
      'oldest_open_call', min(sent_at) FILTER (WHERE outcome IS NULL)) FROM jobmanager.calls
    WHERE sent_at > clock_timestamp() - interval '24 hours');
  found := found || jsonb_build_object('swept_at', (SELECT swept_at FROM jobmanager.epoch));
  IF jobmanager.has_table('cron', 'job_run_details') THEN
    EXECUTE 'SELECT count(*) FROM cron.job_run_details' INTO rows;
    found := found || jsonb_build_object('run_details', rows, 'run_details_bytes', pg_total_relation_size('cron.job_run_details'));
  END IF;
  RETURN found;
EXCEPTION WHEN insufficient_privilege THEN
  RETURN found;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.set_active(_entry text, _active boolean, _by text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Pause an entry, or let it go on. An entry of a job means the job, which is paused itself: the sweep would announce it all the
-- same. The others are remembered, so that no sync brings them back. True if that changed anything.
DECLARE
  changed int;
BEGIN
  UPDATE jobmanager.jobs j SET state = CASE WHEN _active THEN 'active' ELSE 'paused' END, state_by = coalesce(_by, session_user),
      state_reason = NULL
    WHERE jobmanager.entry_name(j.id) = _entry AND j.state = CASE WHEN _active THEN 'paused' ELSE 'active' END;
  GET DIAGNOSTICS changed = ROW_COUNT;
  IF _entry NOT IN ('jm_dispatch', 'jm_sweep', 'jm_http') THEN
    RETURN changed > 0;
  ELSIF _active THEN
    DELETE FROM jobmanager.paused_entries WHERE name = _entry;
  ELSE
    INSERT INTO jobmanager.paused_entries SELECT w.name FROM jobmanager.wanted_entries() w WHERE w.name = _entry ON CONFLICT DO NOTHING;
  END IF;
  GET DIAGNOSTICS changed = ROW_COUNT;
  PERFORM jobmanager.sync_entries(_entry);
  RETURN changed > 0;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.unschedule(_entry text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Take one of our entries out; the next sync brings it back if a job still wants it.
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('jobmanager.sync', 0));
  RETURN coalesce((SELECT cron.unschedule(o.name) FROM jobmanager.our_entries() o WHERE o.name = _entry), false);
END $$;

CREATE OR REPLACE FUNCTION jobmanager.purge_orphans() RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  purged int := 0;
  failed int := 0;
  one text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('jobmanager.sync', 0));
  FOR one IN SELECT o.name FROM jobmanager.our_entries() o LEFT JOIN jobmanager.wanted_entries() w USING (name)
      WHERE w.name IS NULL AND o.name NOT IN (SELECT p.name FROM jobmanager.paused_entries p) LOOP
    BEGIN
      PERFORM cron.unschedule(one);
      purged := purged + 1;
    EXCEPTION WHEN others THEN
      RAISE WARNING 'entry % is not purged: %', one, SQLERRM;
      failed := failed + 1;
    END;
  END LOOP;
  RETURN jsonb_build_object('purged', purged, 'failed', failed);
END $$;

CREATE OR REPLACE FUNCTION jobmanager.remove_entries() RETURNS int
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Remove all our entries: nothing is announced and no application is called any more.
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('jobmanager.sync', 0));
  RETURN (SELECT count(cron.unschedule(o.name)) FROM jobmanager.our_entries() o);
END $$;

CREATE OR REPLACE FUNCTION jobmanager.forget_ticker(_namespace text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Keep this application's time no longer: entries that no other one needs go, and none comes back before its next start.
BEGIN
  DELETE FROM jobmanager.tickers WHERE namespace = _namespace;
  IF NOT EXISTS (SELECT FROM jobmanager.tickers) THEN
    DELETE FROM jobmanager.paused_entries;
  END IF;
  RETURN jobmanager.sync_entries();
END $$;

CREATE OR REPLACE FUNCTION jobmanager.key_count(_namespace text) RETURNS int
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Return how many secrets sign: two while one is replaced.
  SELECT count(DISTINCT ipad)::int FROM jobmanager.live_keys(_namespace)
$$;

CREATE OR REPLACE FUNCTION jobmanager.note(_actor text, _action text, _target text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Record in the server's own log which actor changed what.
BEGIN
  RAISE LOG 'jobmanager: actor=% action=% target=%', quote_ident(regexp_replace(_actor, '[^ -~]', '?', 'g')),
    quote_ident(regexp_replace(_action, '[^ -~]', '?', 'g')), quote_ident(regexp_replace(_target, '[^ -~]', '?', 'g'));
END $$;

CREATE OR REPLACE FUNCTION jobmanager.ring(_namespace text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Call the application without runs: the outcome of this call shows whether any gets through.
BEGIN
  PERFORM jobmanager.post(_namespace, 'sweep', '{}', clock_timestamp());
  RETURN (SELECT max(id) FROM jobmanager.calls WHERE namespace = _namespace AND kind = 'sweep');
END $$;
