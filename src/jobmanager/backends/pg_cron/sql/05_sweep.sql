-- The loop is closed here: the outcome of each call, the calls that are repeated, and the ticks that were announced too late.

CREATE OR REPLACE FUNCTION jobmanager.outcome_of(_call bigint, _after interval, _status int, _timed_out boolean, _error text, _content text)
RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
-- Return one word of a closed set. A 2xx that does not name our call is not the endpoint's: a redirect, a login page, a proxy. A 401
-- after five minutes says that the signature was too old when pg_net sent it.
  SELECT CASE
    WHEN _timed_out OR _status IS NULL AND _error ~* 'time(out|d out)' THEN 'timeout'
    WHEN _status IS NULL AND _error ~* 'resolve (host|name)' THEN 'dns'
    WHEN _status IS NULL AND _error ~* 'connect to' THEN 'refused'
    WHEN _status IS NULL THEN 'network'
    WHEN _status BETWEEN 200 AND 299 AND _content ~ ('^\s*\{.*"call"\s*:\s*' || _call || '\M') THEN 'accepted'
    WHEN _status BETWEEN 200 AND 299 THEN 'not_ours'
    WHEN _status = 401 AND _after > interval '300 seconds' THEN 'worker_stalled'
    WHEN _status IN (401, 403) THEN 'unauthorized'
    WHEN _status IN (404, 410) THEN 'wrong_path'
    WHEN _status = 405 THEN 'wrong_method'
    WHEN _status = 413 THEN 'too_large'
    WHEN _status = 429 THEN 'rate_limited'
    WHEN _status BETWEEN 500 AND 599 THEN 'server_error'
    ELSE 'http_' || _status END
$$;

CREATE OR REPLACE FUNCTION jobmanager.readable(_text text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET client_encoding = 'SQL_ASCII' AS $$
-- Return the first 300 characters of a response. pg_net stores whatever bytes came, and bytes that are no characters of the
-- database's encoding would make `left` fail here, every client fail that reads them, and a dump impossible to restore: such a text
-- is escaped. As this client encoding, textsend hands out the bytes as they are.
DECLARE
  bytes bytea := textsend(_text);
BEGIN
  PERFORM convert_from(bytes, getdatabaseencoding());
  RETURN left(_text, 300);
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
  RETURN left(encode(substring(bytes FROM 1 FOR 300), 'escape'), 300);
END $$;

CREATE OR REPLACE FUNCTION jobmanager.label(_call bigint, _outcome text, _status int, _detail text, _now timestamptz) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  UPDATE jobmanager.calls SET outcome = _outcome, http_status = _status, answered_at = _now, run_ids = NULL,
    detail = CASE WHEN _outcome <> 'accepted' THEN jobmanager.readable(_detail) END WHERE id = _call AND outcome IS NULL
$$;

CREATE OR REPLACE FUNCTION jobmanager.were_accepted(_call bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- Return whether the application accepted all runs of a call that is open: whatever became of its answer, it arrived.
  SELECT c.kind = 'ticks' AND NOT EXISTS (SELECT FROM jobmanager.runs r WHERE r.id = ANY (c.run_ids) AND r.accepted_at IS NULL
    AND (r.status = 'pending' OR r.reason = 'transport')) FROM jobmanager.calls c WHERE c.id = _call
$$;

CREATE OR REPLACE FUNCTION jobmanager.label_answer(_call bigint, _after interval, _status int, _timed_out boolean, _error text, _content text,
  _now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Label one call by its answer, and one that was answered too late by its runs. An answer that cannot be worked with is labelled by its
-- status alone: it must not end the pass.
DECLARE
  outcome text;
BEGIN
  outcome := jobmanager.outcome_of(_call, _after, _status, _timed_out, _error, _content);
  IF outcome = 'timeout' AND jobmanager.were_accepted(_call) THEN
    outcome := 'accepted';
  END IF;
  PERFORM jobmanager.label(_call, outcome, _status, coalesce(_error, _content), _now);
EXCEPTION WHEN others THEN
  PERFORM jobmanager.label(_call, jobmanager.outcome_of(_call, _after, _status, _timed_out, '', ''), _status,
    'the answer cannot be read: ' || SQLERRM, _now);
END $$;

CREATE OR REPLACE FUNCTION jobmanager.read_answers(_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Ids of requests begin at 1 again after a crash: an answer counts only in the epoch of its call. There is no index on
-- them, so the oldest open call bounds the search by time.
DECLARE
  oldest timestamptz := (SELECT min(sent_at) FROM jobmanager.calls WHERE outcome IS NULL AND request_id IS NOT NULL);
BEGIN
  IF oldest IS NOT NULL AND jobmanager.has_table('net', '_http_response') THEN
    PERFORM jobmanager.label_answer(c.id, r.created - c.sent_at, r.status_code, r.timed_out, r.error_msg, r.content, _now)
      FROM jobmanager.calls c JOIN net._http_response r ON r.id = c.request_id AND r.created >= c.sent_at - interval '5 seconds'
     WHERE c.outcome IS NULL AND c.epoch = jobmanager.current_epoch() AND r.created >= oldest - interval '5 seconds';
  END IF;
EXCEPTION WHEN insufficient_privilege THEN
  RAISE WARNING 'the answers of pg_net cannot be read: %', SQLERRM;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.waits_in_queue(_request bigint) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN jobmanager.has_table('net', 'http_request_queue') AND EXISTS (SELECT FROM net.http_request_queue q WHERE q.id = _request);
EXCEPTION WHEN insufficient_privilege THEN
  RETURN false;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.give_up_answers(_now timestamptz) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Label calls that will get no response any more. If all their runs were accepted, that is evidence enough; of a lost one the runs
-- are called for at once.
  WITH silent AS (
    SELECT c.*
      FROM jobmanager.calls c JOIN jobmanager.tickers t USING (namespace)
     WHERE c.outcome IS NULL AND (c.epoch <> jobmanager.current_epoch() AND c.request_id IS NOT NULL
        OR c.sent_at < _now - t.timeout_ms * interval '1 millisecond' - interval '10 seconds')),
  judged AS (
    SELECT id, CASE WHEN jobmanager.were_accepted(id) THEN 'accepted'
        WHEN request_id IS NULL THEN 'no_listener'
        WHEN epoch <> jobmanager.current_epoch() THEN 'lost_crash'
        WHEN jobmanager.waits_in_queue(request_id) THEN 'worker_stalled' ELSE 'lost' END AS outcome FROM silent),
  again AS (
    UPDATE jobmanager.run_calls rc SET next_call_at = _now FROM judged
     WHERE rc.call_id = judged.id AND judged.outcome LIKE 'lost%')
  SELECT jobmanager.label(id, outcome, NULL, NULL, _now) FROM judged
$$;

CREATE OR REPLACE FUNCTION jobmanager.close_unaccepted(_now timestamptz) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Close announced rows that no process accepted within the job's window: missed, with the outcome of the last call.
  UPDATE jobmanager.runs r SET status = 'missed', reason = 'transport', finished_at = _now,
      error = jsonb_build_object('kind', 'http', 'type', '', 'traceback', '', 'message',
        coalesce((SELECT concat_ws(': ', c.outcome, c.detail) FROM jobmanager.run_calls rc JOIN jobmanager.calls c ON c.id = rc.call_id
                   WHERE rc.run_id = r.id), 'never called'))
    FROM jobmanager.jobs j JOIN jobmanager.active_tickers t USING (namespace)
   WHERE r.status = 'pending' AND r.accepted_at IS NULL AND j.id = r.job_id
     AND r.due_at < _now - j.catch_up_window_seconds * interval '1 second'
$$;

CREATE OR REPLACE FUNCTION jobmanager.due_for_call(_now timestamptz, _transport text) RETURNS TABLE (namespace text, runs uuid[])
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Return pending runs, due and without a recent call: never called, lost, retries, delayed ones, or accepted and then left.
  SELECT namespace, array_agg(id ORDER BY priority DESC, due_at, id) FROM (
    SELECT r.id, r.priority, r.due_at, j.namespace
      FROM jobmanager.runs r JOIN jobmanager.jobs j ON j.id = r.job_id JOIN jobmanager.active_tickers t ON t.namespace = j.namespace
      LEFT JOIN jobmanager.run_calls rc ON rc.run_id = r.id
     WHERE r.status = 'pending' AND r.due_at <= _now AND j.state IN ('active', 'paused')
       AND (rc.next_call_at IS NULL OR rc.next_call_at <= _now)
       AND (_transport IS NULL AND t.transport <> 'http' OR t.transport = _transport)
       AND (r.turn IS DISTINCT FROM 'waits' OR NOT EXISTS (
         SELECT FROM jobmanager.runs h WHERE h.concurrency_key = r.concurrency_key AND h.turn = 'holds'))
     ORDER BY r.priority DESC, r.due_at, r.id LIMIT 5000 FOR UPDATE OF r SKIP LOCKED) found
  GROUP BY namespace
$$;

CREATE OR REPLACE FUNCTION jobmanager.needs_planning(_namespace text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- Return whether a job is parked, or is not due at any instant although there may be one.
  SELECT EXISTS (SELECT FROM jobmanager.jobs j LEFT JOIN jobmanager.schedules s USING (schedule)
      WHERE j.namespace = _namespace AND j.state = 'active' AND j.schedule <> 'none'
        AND (j.next_due_at IS NULL AND (s.schedule IS NULL OR s.kind <> 'at' OR s.first_at > j.accounted_until)
          OR j.next_due_at <= j.accounted_until))
    OR EXISTS (SELECT FROM jobmanager.parked p JOIN jobmanager.jobs j ON j.id = p.job_id
      WHERE j.namespace = _namespace AND j.state = 'active')
$$;

CREATE OR REPLACE FUNCTION jobmanager.has_orphans(_namespace text, _now timestamptz) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- Return whether a run is running whose process has been silent for long: policy is the application's.
  SELECT EXISTS (SELECT FROM jobmanager.runs r JOIN jobmanager.jobs j ON j.id = r.job_id AND j.namespace = _namespace
      LEFT JOIN jobmanager.instances i ON i.id = r.owner
     WHERE r.status = 'running' AND (i.id IS NULL OR i.dead_at IS NOT NULL OR i.seen_at < _now - interval '45 seconds'))
$$;

CREATE OR REPLACE FUNCTION jobmanager.wanted_calls(_now timestamptz, _transport text) RETURNS TABLE (namespace text, kind text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- Return which applications have to plan, or to look after the dead, and were not called for that for a minute.
  SELECT t.namespace, wanted.kind FROM jobmanager.active_tickers t, LATERAL (VALUES
      ('plan', jobmanager.needs_planning(t.namespace)), ('sweep', jobmanager.has_orphans(t.namespace, _now))) AS wanted(kind, needed)
   WHERE wanted.needed AND t.transport = _transport AND NOT EXISTS (SELECT FROM jobmanager.calls c WHERE c.namespace = t.namespace
     AND c.kind = wanted.kind AND c.sent_at > _now - interval '60 seconds')
$$;

CREATE OR REPLACE FUNCTION jobmanager.wake(_now timestamptz) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Call them by pg_net; by http in call_by_http. Who listens lives, and does both by itself.
  SELECT jobmanager.post(w.namespace, w.kind, '{}', _now) FROM jobmanager.wanted_calls(_now, 'pg_net') w
$$;

CREATE OR REPLACE FUNCTION jobmanager.prune(_keep interval DEFAULT '7 days') RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Forget old calls, and what pg_cron notes of each of our wake-ups.
BEGIN
  DELETE FROM jobmanager.calls WHERE sent_at < clock_timestamp() - _keep;
  DELETE FROM jobmanager.run_calls rc WHERE NOT EXISTS (SELECT FROM jobmanager.runs r WHERE r.id = rc.run_id AND r.status = 'pending')
    AND NOT EXISTS (SELECT FROM jobmanager.calls c WHERE c.id = rc.call_id);
  IF jobmanager.has_table('cron', 'job_run_details') THEN
    DELETE FROM cron.job_run_details d WHERE d.username = current_user AND d.start_time < clock_timestamp() - _keep
      AND (d.command LIKE 'SELECT jobmanager.fire(%' OR d.command LIKE 'CALL jobmanager.%');
  END IF;
EXCEPTION WHEN insufficient_privilege OR undefined_table THEN
  RAISE WARNING 'cron.job_run_details is not pruned: %', SQLERRM;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.sweep(_now timestamptz DEFAULT NULL) RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Make one pass; return how many runs the application was called for. Two at once: the second does nothing.
DECLARE
  moment timestamptz := coalesce(_now, clock_timestamp());
  called int := 0;
  each record;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('jobmanager.sweep', 0)) THEN
    RETURN 0;
  END IF;
  PERFORM jobmanager.current_epoch();
  UPDATE jobmanager.epoch SET swept_at = clock_timestamp();
  PERFORM jobmanager.read_answers(moment);
  PERFORM jobmanager.give_up_answers(moment);
  PERFORM count(*) FROM jobmanager.announce(NULL, CASE WHEN EXISTS (SELECT FROM jobmanager.tickers WHERE layout = 'entries')
    THEN interval '20 seconds' ELSE interval '0' END, moment);
  PERFORM jobmanager.close_unaccepted(moment);
  FOR each IN SELECT * FROM jobmanager.due_for_call(moment, NULL) LOOP
    PERFORM jobmanager.post(each.namespace, 'ticks', each.runs, moment);
    called := called + cardinality(each.runs);
  END LOOP;
  PERFORM jobmanager.wake(moment);
  IF EXISTS (SELECT FROM jobmanager.tickers WHERE pruned_at IS NULL OR pruned_at < moment - interval '1 day') THEN
    PERFORM jobmanager.prune();
    UPDATE jobmanager.tickers SET pruned_at = moment;
  END IF;
  RETURN called;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.next_http_call(_now timestamptz, OUT call bigint, OUT url text, OUT headers jsonb, OUT body text, OUT timeout_ms int)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- The next call of an application that is reached by the extension `http`; NULL if there is none.
DECLARE
  due record;
  made record;
BEGIN
  IF NOT EXISTS (SELECT FROM jobmanager.active_tickers WHERE transport = 'http') THEN
    RETURN;
  END IF;
  SELECT namespace, 'ticks' AS kind, runs[1:100] AS runs INTO due FROM jobmanager.due_for_call(_now, 'http') LIMIT 1;
  IF due.namespace IS NULL THEN
    SELECT namespace, kind, '{}'::uuid[] AS runs INTO due FROM jobmanager.wanted_calls(_now, 'http') LIMIT 1;
  END IF;
  IF due.namespace IS NULL THEN
    RETURN;
  END IF;
  SELECT * INTO made FROM jobmanager.open_call(due.namespace, due.kind, due.runs, _now);
  SELECT t.url, t.timeout_ms INTO url, timeout_ms FROM jobmanager.tickers t WHERE t.namespace = due.namespace;
  call := made.call;
  body := made.body::text;
  headers := jobmanager.headers_of(due.namespace, call, body, _now);
END $$;

CREATE OR REPLACE FUNCTION jobmanager.http_answer(_url text, _headers jsonb, _body text, _timeout_ms int, OUT status int, OUT content text, OUT error text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Found by name in whatever schema the extension lives; errors are an answer, too.
DECLARE
  home text := (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'http');
BEGIN
  EXECUTE format('SELECT %1$s.http_set_curlopt(''CURLOPT_TIMEOUT_MS'', $1)', home) USING _timeout_ms::text;
  EXECUTE format('SELECT a.status, a.content FROM %1$s.http((''POST'', $1, (SELECT array_agg((key, value)::%1$s.http_header) '
    'FROM jsonb_each_text($2) WHERE key <> ''Content-Type''), ''application/json'', $3)::%1$s.http_request) a', home)
    INTO status, content USING _url, _headers, _body;
EXCEPTION WHEN others THEN
  error := SQLERRM;
END $$;

-- The extension `http` waits for the answer, so what is announced is committed before it is called for. The first call that
-- does not get through ends the pass, and so do ten seconds: a slow application would hold this place for long.
CREATE OR REPLACE PROCEDURE jobmanager.call_by_http() LANGUAGE plpgsql AS $$
DECLARE
  ends pg_catalog.timestamptz := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) interval '10 seconds';
  made record;
  answer record;
BEGIN
  FOR turn IN 1..50 LOOP
    SELECT * INTO made FROM jobmanager.next_http_call(pg_catalog.clock_timestamp());
    COMMIT;
    EXIT WHEN made.call IS NULL;
    SELECT * INTO answer FROM jobmanager.http_answer(made.url, made.headers, made.body, made.timeout_ms);
    PERFORM jobmanager.label_answer(made.call, interval '0', answer.status, false, answer.error, answer.content,
      pg_catalog.clock_timestamp());
    COMMIT;
    EXIT WHEN answer.status IS NULL OR pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) ends;
  END LOOP;
END $$;

-- What the sweep announces at the same second it calls for itself, in call_by_http: whoever comes first, no tick waits for the next minute.
CREATE OR REPLACE PROCEDURE jobmanager.fire_http(_entry text) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM jobmanager.announce(_entry, interval '0', pg_catalog.clock_timestamp(), true);
  COMMIT;
  CALL jobmanager.call_by_http();
END $$;

CREATE OR REPLACE FUNCTION jobmanager.holds_up_others() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- Return whether pg_cron starts no entry, of anybody, while this session is at work: before 1.5 its launcher waits for each of its
-- background workers. What counts is the library; an extension that was not updated keeps the version it was created with.
  SELECT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = pg_backend_pid() AND a.backend_type = 'pg_cron')
    AND EXISTS (SELECT FROM pg_available_extensions e WHERE e.name = 'pg_cron' AND e.default_version ~ '^1\.[0-4]\M')
$$;

CREATE OR REPLACE FUNCTION jobmanager.wait_for_pass(_pass int, _began timestamptz) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pg_sleep(greatest(extract(epoch FROM _began + (_pass - 1) * interval '14.5 seconds' - clock_timestamp()), 0))
$$;

-- Must be the only statement of its command: it commits between its passes. A procedure that commits cannot pin its search path, so
-- here, as in call_by_http, every name and operator has its schema.
CREATE OR REPLACE PROCEDURE jobmanager.sweep_minute(_passes int) LANGUAGE plpgsql AS $$
DECLARE
  began pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
  FOR pass IN 1.._passes LOOP
    PERFORM jobmanager.wait_for_pass(pass, began);
    PERFORM jobmanager.sweep();
    COMMIT;
    CALL jobmanager.call_by_http();
    EXIT WHEN jobmanager.holds_up_others();
  END LOOP;
END $$;
