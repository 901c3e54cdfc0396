-- Ticks become rows, and rows a call, in one transaction. A row opened here is only announced: what becomes of it,
-- the application decides when it accepts it.

CREATE OR REPLACE FUNCTION jobmanager.entry_name(_job_id text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
  SELECT 'jm_' || substr(encode(sha256(convert_to(_job_id, 'UTF8')), 'hex'), 1, 24)
$$;
CREATE UNIQUE INDEX IF NOT EXISTS jobs_entry ON jobmanager.jobs (jobmanager.entry_name(id));

CREATE OR REPLACE FUNCTION jobmanager.new_id(_now timestamptz) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- A UUIDv7, made as the application makes its own: milliseconds, their fraction, and chance.
  SELECT (lpad(to_hex(micros / 1000), 12, '0') || '7' || lpad(to_hex((micros % 1000 << 12) / 1000), 3, '0')
          || substr(replace(gen_random_uuid()::text, '-', ''), 17))::uuid
    FROM (SELECT (extract(epoch FROM _now) * 1000000)::bigint AS micros) t
$$;

CREATE OR REPLACE FUNCTION jobmanager.announce_ticks(_jobs text[], _now timestamptz) RETURNS TABLE (run_id uuid, job_id text)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Open a row for every tick of these jobs that is due; their rows are locked. Nothing is opened twice: the tick is unique.
-- A job whose plan says no more is parked, and stays due at an instant that is known: the application goes on from there.
  WITH due AS (
    SELECT j.*, t.tick FROM jobmanager.jobs j
      LEFT JOIN LATERAL jobmanager.ticks(j.schedule, j.next_due_at - interval '1 microsecond', _now, 200) AS t(tick) ON true
     WHERE j.id = ANY (_jobs)),
  opened AS (
    INSERT INTO jobmanager.runs (id, job_id, schedule_rev, scheduled_for, ticks, status, trigger, notify, due_at, expires_at,
      attempt, max_attempts, retry_on_crash, concurrency_key, priority, opened_at)
    SELECT jobmanager.new_id(_now), id, schedule_rev, tick, 1, 'pending', 'schedule', false, tick,
      tick + start_deadline_seconds * interval '1 second', 0, max_attempts, retry_on_crash, id, 0, _now
      FROM due WHERE tick IS NOT NULL ORDER BY id, tick
    ON CONFLICT DO NOTHING RETURNING runs.id, runs.job_id),
  last AS MATERIALIZED (
    SELECT d.id, d.schedule, d.next_due_at, max(d.tick) AS tick, jobmanager.next_tick(d.schedule, coalesce(max(d.tick), _now)) AS following
      FROM due d GROUP BY d.id, d.schedule, d.next_due_at),
  exhausted AS (
    INSERT INTO jobmanager.parked (job_id, error)
    SELECT id, 'plan_exhausted' FROM last WHERE following IS NULL AND jobmanager.lacks_plan(schedule) ON CONFLICT DO NOTHING),
  moved AS (
    UPDATE jobmanager.jobs j SET accounted_until = greatest(j.accounted_until, last.tick),
      next_due_at = coalesce(last.following, CASE WHEN jobmanager.lacks_plan(last.schedule) THEN coalesce(last.tick, last.next_due_at) END)
      FROM last WHERE j.id = last.id)
  SELECT opened.id, opened.job_id FROM opened
$$;

CREATE OR REPLACE FUNCTION jobmanager.bury_ticks(_job_id text, _now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Record as missed what was not announced within the job's window; a long stretch without any row is one row with a count.
DECLARE
  j jobmanager.jobs;
  missed timestamptz[];
BEGIN
  SELECT * INTO j FROM jobmanager.jobs WHERE id = _job_id;
  SELECT array_agg(tick ORDER BY tick) INTO missed FROM jobmanager.ticks(j.schedule, j.next_due_at - interval '1 microsecond',
    _now - j.catch_up_window_seconds * interval '1 second', 5000) AS t(tick);
  IF missed IS NULL THEN
    RETURN;
  ELSIF cardinality(missed) > 100 AND NOT EXISTS (SELECT FROM jobmanager.runs r WHERE r.job_id = j.id
      AND r.scheduled_for BETWEEN missed[1] AND missed[cardinality(missed)]) THEN
    INSERT INTO jobmanager.runs (id, job_id, schedule_rev, scheduled_for, first_for, ticks, status, reason, trigger, notify, due_at,
      attempt, max_attempts, retry_on_crash, concurrency_key, priority, opened_at, accepted_at, finished_at)
    VALUES (jobmanager.new_id(_now), j.id, j.schedule_rev, missed[cardinality(missed)], missed[1], cardinality(missed), 'missed',
      'downtime', 'sweep', false, missed[cardinality(missed)], 0, j.max_attempts, j.retry_on_crash, j.id, 0, _now, _now, _now);
  ELSE
    INSERT INTO jobmanager.runs (id, job_id, schedule_rev, scheduled_for, ticks, status, reason, trigger, notify, due_at,
      attempt, max_attempts, retry_on_crash, concurrency_key, priority, opened_at, accepted_at, finished_at)
    SELECT jobmanager.new_id(_now), j.id, j.schedule_rev, tick, 1, 'missed', 'downtime', 'sweep', false, tick,
      0, j.max_attempts, j.retry_on_crash, j.id, 0, _now, _now, _now
      FROM unnest(missed) AS tick ON CONFLICT DO NOTHING;
  END IF;
  UPDATE jobmanager.jobs SET
    next_due_at = jobmanager.next_due(schedule, missed[cardinality(missed)], missed[cardinality(missed)]),
    accounted_until = greatest(accounted_until, missed[cardinality(missed)]) WHERE id = j.id;
END $$;

DROP FUNCTION IF EXISTS jobmanager.announce(text, interval, timestamptz);
CREATE OR REPLACE FUNCTION jobmanager.announce(_entry text, _grace interval, _now timestamptz, _http boolean DEFAULT NULL)
RETURNS TABLE (run_id uuid, job_id text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Announce what has been due for longer than `_grace`: of one entry, or with NULL of all. Jobs that others hold are left out, and with
-- `_http` those that are called for otherwise: announced by a session that does not call for them, they would wait for the sweep.
#variable_conflict use_column
DECLARE
  due text[];
  late text[];
  one text;
  failed text;
BEGIN
  SELECT array_agg(id), array_agg(id) FILTER (WHERE next_due_at <= _now - catch_up_window_seconds * interval '1 second')
    INTO due, late FROM (
    SELECT j.id, j.next_due_at, j.catch_up_window_seconds FROM jobmanager.jobs j
     WHERE j.next_due_at <= _now - _grace AND j.state = 'active'
       AND (_entry IS NULL OR jobmanager.entry_name(j.id) = _entry)
       AND EXISTS (SELECT FROM jobmanager.active_tickers t WHERE t.namespace = j.namespace
         AND (_http IS NULL OR (t.transport = 'http') = _http))
       AND NOT EXISTS (SELECT FROM jobmanager.parked p WHERE p.job_id = j.id)
     ORDER BY j.next_due_at LIMIT 5000 FOR NO KEY UPDATE OF j SKIP LOCKED) found;
  IF due IS NULL THEN
    RETURN;
  END IF;
  BEGIN
    PERFORM jobmanager.bury_ticks(id, _now) FROM unnest(late) AS id;
    RETURN QUERY SELECT * FROM jobmanager.announce_ticks(due, _now);
    RETURN;
  EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
    -- One job whose schedule cannot be worked with must not stop the others.
  END;
  FOREACH one IN ARRAY due LOOP
    BEGIN
      PERFORM jobmanager.bury_ticks(one, _now) WHERE one = ANY (late);
      RETURN QUERY SELECT * FROM jobmanager.announce_ticks(ARRAY[one], _now);
    EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
      GET STACKED DIAGNOSTICS failed = MESSAGE_TEXT;
      RAISE WARNING 'job % is parked until it is planned anew: %', one, failed;
      INSERT INTO jobmanager.parked (job_id, error) VALUES (one, failed) ON CONFLICT DO NOTHING;
    END;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.current_epoch() RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO jobmanager.epoch DEFAULT VALUES ON CONFLICT DO NOTHING;
  RETURN (SELECT id FROM jobmanager.epoch);
END $$;

CREATE OR REPLACE FUNCTION jobmanager.headers_of(_namespace text, _call bigint, _body text, _now timestamptz) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- What proves that the call is ours: a signature of exactly this body at this second, or the secret itself where that is wanted.
DECLARE
  name text := 'call_' || _call;
  second text := floor(extract(epoch FROM _now))::bigint;
BEGIN
  IF (SELECT auth FROM jobmanager.tickers WHERE namespace = _namespace) = 'bearer' THEN
    RETURN jsonb_build_object('Content-Type', 'application/json', 'Authorization',
      -- The oldest: while a secret is replaced the application may not know the new one yet.
      'Bearer ' || (SELECT k.bearer FROM jobmanager.live_keys(_namespace) WITH ORDINALITY AS k(ipad, opad, bearer, place)
        WHERE k.bearer IS NOT NULL ORDER BY place DESC LIMIT 1));
  END IF;
  RETURN jsonb_build_object('Content-Type', 'application/json', 'webhook-id', name, 'webhook-timestamp', second,
    'webhook-signature', coalesce(jobmanager.signature(_namespace, convert_to(name || '.' || second || '.' || _body, 'UTF8')), ''));
END $$;

CREATE OR REPLACE FUNCTION jobmanager.open_call(_namespace text, _kind text, _runs uuid[], _now timestamptz, OUT call bigint, OUT body jsonb)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- A call on file, with the runs it carries and when each is called for again if nothing comes of it.
DECLARE
  patience interval := (SELECT timeout_ms FROM jobmanager.tickers WHERE namespace = _namespace) * interval '1 millisecond';
BEGIN
  INSERT INTO jobmanager.calls (namespace, kind, epoch, sent_at, runs, run_ids)
    VALUES (_namespace, _kind, jobmanager.current_epoch(), _now, cardinality(_runs), _runs) RETURNING id INTO call;
  INSERT INTO jobmanager.run_calls AS known (run_id, calls, next_call_at, call_id)
    SELECT run, 1, _now + patience + interval '15 seconds', call FROM unnest(_runs) AS run
    ON CONFLICT (run_id) DO UPDATE SET calls = known.calls + 1, next_call_at = _now + patience + interval '30 seconds',
      call_id = excluded.call_id;
  body := jsonb_build_object('v', 1, 'call', call, 'kind', _kind, 'runs', to_jsonb(_runs));
END $$;

CREATE OR REPLACE FUNCTION jobmanager.post(_namespace text, _kind text, _runs uuid[], _now timestamptz) RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Call the application for these runs, a hundred at a time; return the number of calls. What is sent leaves with the commit.
DECLARE
  t jobmanager.tickers;
  sent int := 0;
  made record;
BEGIN
  SELECT * INTO t FROM jobmanager.tickers WHERE namespace = _namespace;
  FOR low IN 1..greatest(cardinality(_runs), 1) BY 100 LOOP
    SELECT * INTO made FROM jobmanager.open_call(_namespace, _kind, coalesce(_runs[low : low + 99], '{}'), _now);
    IF t.transport = 'pg_net' AND jobmanager.has_table('net', 'http_request_queue') THEN
      BEGIN
        UPDATE jobmanager.calls SET request_id = net.http_post(
          url := t.url, body := made.body, headers := jobmanager.headers_of(_namespace, made.call, made.body::text, _now),
          timeout_milliseconds := t.timeout_ms) WHERE id = made.call;
      EXCEPTION WHEN others THEN
        -- What is announced stays announced, and other applications are called.
        RAISE WARNING 'application % is not called: %', _namespace, SQLERRM;
        PERFORM jobmanager.label(made.call, 'network', NULL, SQLERRM, _now);
      END;
    ELSE
      PERFORM pg_notify('jobmanager', _namespace || ' ' || made.call);
    END IF;
    sent := sent + 1;
  END LOOP;
  RETURN sent;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.fire(_entry text, _now timestamptz DEFAULT NULL) RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Announce what is due, as pg_cron calls it, of one entry or with NULL of all, and call the application for it.
DECLARE
  moment timestamptz := coalesce(_now, clock_timestamp());
  found int := 0;
  each record;
BEGIN
  FOR each IN
    SELECT j.namespace, array_agg(a.run_id ORDER BY a.run_id) AS runs FROM jobmanager.announce(_entry, interval '0', moment, false) a
      JOIN jobmanager.jobs j ON j.id = a.job_id GROUP BY j.namespace
  LOOP
    PERFORM jobmanager.post(each.namespace, 'ticks', each.runs, moment);
    found := found + cardinality(each.runs);
  END LOOP;
  RETURN found;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.run_due() RETURNS int
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- For an application that has just started: announce what is due by now, without waiting for the next wake-up. No moment can be given,
-- so that a role with no other right opens nothing but what is due.
  SELECT jobmanager.fire(NULL) + (SELECT count(*)::int FROM jobmanager.announce(NULL, interval '0', clock_timestamp(), true))
$$;
