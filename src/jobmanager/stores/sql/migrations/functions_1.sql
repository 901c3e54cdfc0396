-- What other languages call: `create_job` makes a job, `enqueue` starts a run. They check what SQL can, and refuse with a sentence.
-- They have their owner's rights, so that a role needs EXECUTE on them and no right on any table. Frozen, as the revision that makes them.

CREATE FUNCTION jobmanager.row_id(_now timestamptz) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- A UUIDv7, made as the application makes its own: milliseconds, their fraction, and chance.
  SELECT (lpad(to_hex(micros / 1000), 12, '0') || '7' || lpad(to_hex((mod(micros, 1000) << 12) / 1000), 3, '0')
          || substr(replace(gen_random_uuid()::text, '-', ''), 17))::uuid
    FROM (SELECT (extract(epoch FROM _now) * 1000000)::bigint AS micros) t
$$;
-- next
CREATE FUNCTION jobmanager.fault_of_cron(_line text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
-- What is wrong with a cron line by its shape and its numbers, as a sentence; NULL if nothing is. What is left, such as a date that never
-- comes, the application refuses.
DECLARE
  names text[] := ARRAY['second', 'minute', 'hour', 'day-of-month', 'month', 'day-of-week'];
  low int[] := ARRAY[0, 0, 0, 1, 1, 0];
  high int[] := ARRAY[59, 59, 23, 31, 12, 7];
  fields text[] := string_to_array(_line, ' ');
  n int;
BEGIN
  IF _line ~ '^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$' THEN
    RETURN NULL;
  ELSIF length(_line) > 1000 OR cardinality(fields) NOT IN (5, 6) THEN
    RETURN 'a cron expression has 5 fields, or 6 with the seconds first; ' || quote_literal(left(_line, 100)) || ' has ' || cardinality(fields) || '.';
  END IF;
  FOR i IN 1..cardinality(fields) LOOP
    n := i + 6 - cardinality(fields);
    IF fields[i] !~ '^[0-9A-Za-z*/,#-]+$' OR EXISTS (
        SELECT FROM regexp_matches(regexp_replace(fields[i], '[/#][0-9]+', '', 'g'), '[0-9]+', 'g') AS number
         WHERE length(number[1]) > 4 OR number[1]::int NOT BETWEEN low[n] AND high[n]) THEN
      RETURN quote_literal(left(fields[i], 100)) || ' is no ' || names[n] || ' of a cron expression, which takes ' || low[n] || ' to ' || high[n]
        || ', lists, ranges and steps.';
    END IF;
  END LOOP;
  RETURN NULL;
END $$;
-- next
CREATE FUNCTION jobmanager.presentable(_words jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
-- The definition as the audit keeps it. SQL cannot tell a secret from its neighbours, so with one the whole config is hidden.
  SELECT CASE WHEN (_words -> 'config')::text ~* '(pass|pwd|secret|token|key|credential|authorization|bearer|cookie|://[^/ ]*@)'
    THEN _words || '{"config": "[redacted]"}' ELSE _words END
$$;
-- next
CREATE FUNCTION jobmanager.handlers_of(_namespace text) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- The keys of the handlers that living processes have, in order; NULL without any.
  SELECT array_agg(DISTINCT k.key ORDER BY k.key) FROM jobmanager.declarations d, jsonb_array_elements_text(d.handlers) AS k(key)
   WHERE d.digest IN (SELECT i.declares FROM jobmanager.instances i WHERE i.namespace = _namespace AND i.dead_at IS NULL)
$$;
-- next
CREATE FUNCTION jobmanager.create_job(id text, handler text, cron text DEFAULT NULL, timezone text DEFAULT 'UTC',
  config jsonb DEFAULT '{}', namespace text DEFAULT 'default', by text DEFAULT session_user) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Make a job of a handler that a living process has; it fires once a process of the application has taken it over, or planned it.
#variable_conflict use_column
DECLARE
  moment timestamptz := clock_timestamp();
  line text := nullif(regexp_replace(btrim(create_job.cron), '\s+', ' ', 'g'), '');
  zone text := coalesce(create_job.timezone, 'UTC');
  arguments jsonb := coalesce(create_job.config, '{}');
  space text := coalesce(create_job.namespace, 'default');
  place text := 'Job ' || coalesce(quote_literal(left(create_job.id, 128)), 'NULL') || ': ';
  timing text := 'none';
  described text := jsonb_build_object('name', create_job.id, 'handler', create_job.handler, 'config', coalesce(create_job.config, '{}'))::text;
  fault text;
  help text;
  words jsonb;
  there jobmanager.jobs;
  made jobmanager.jobs;
BEGIN
  IF coalesce(create_job.id, '') !~ '^[a-z0-9][a-z0-9._-]{0,127}$' THEN
    fault := 'the id is not a slug.'; help := 'Use 1 to 128 of a-z, 0-9, dot, dash and underscore.';
  ELSIF jsonb_typeof(arguments) <> 'object' THEN
    fault := 'config is no JSON object.'; help := 'Give the arguments by name, such as {"days": 7}.';
  ELSIF octet_length(arguments::text) > 65536 THEN
    fault := 'config has more than 65,536 bytes (64 KiB).'; help := 'Give an id, and let the handler load the rest.';
  ELSIF length(create_job.by) > 500 THEN
    fault := 'by has more than 500 characters.'; help := 'Give a name.';
  ELSIF line IS NOT NULL AND jobmanager.fault_of_cron(line) IS NOT NULL THEN
    fault := jobmanager.fault_of_cron(line); help := 'For example 0 3 * * 1-5: at 03:00 on Monday to Friday.';
  ELSIF line IS NOT NULL AND NOT EXISTS (SELECT FROM pg_timezone_names z WHERE z.name = zone) THEN
    fault := quote_literal(left(zone, 128)) || ' is no time zone.'; help := 'Use an IANA name such as Europe/Berlin.';
  ELSIF NOT coalesce(create_job.handler = ANY (jobmanager.handlers_of(space)), false) THEN
    fault := 'no living process of namespace ' || quote_literal(left(space, 128)) || ' has a handler '
      || coalesce(quote_literal(left(create_job.handler, 128)), 'NULL') || '.';
    help := coalesce('There are: ' || array_to_string((jobmanager.handlers_of(space))[1:20], ', '), 'Start a process of the application first.');
  END IF;
  IF fault IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = place || fault, HINT = help;
  ELSIF line IS NOT NULL THEN
    timing := 'cron ' || line || ' in ' || zone;
  END IF;
  words := jsonb_strip_nulls(jsonb_build_object('handler', create_job.handler, 'cron', line,
    'timezone', CASE WHEN line IS NOT NULL AND zone <> 'UTC' THEN zone END))
    || CASE WHEN arguments = '{}' THEN '{}' ELSE jsonb_build_object('config', arguments) END;
  INSERT INTO jobmanager.jobs (id, namespace, declared, state, state_at, schedule, accounted_until, history_from, overlap, queue_cap, catch_up,
      catch_up_cap, catch_up_window_seconds, jitter_seconds, max_attempts, retry_on_crash, change_seq, definition)
    VALUES (create_job.id, space, described, 'active', moment, timing, moment, moment, 'skip', 100, 'latest', 100, 3600, 0, 1, true, -1, words)
    ON CONFLICT DO NOTHING RETURNING * INTO made;
  IF made.id IS NULL THEN
    SELECT * INTO there FROM jobmanager.jobs j WHERE j.id = create_job.id FOR NO KEY UPDATE;
    IF there.state <> 'deleted' THEN
      RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = 'Job ' || quote_literal(there.id) || ' exists already, '
        || CASE WHEN there.definition IS NULL THEN 'declared by code' ELSE 'made by an operator' END || ' in namespace '
        || quote_literal(there.namespace) || '.', HINT = 'Edit that one, or choose another id.';
    END IF;
    UPDATE jobmanager.jobs j SET namespace = space, override = NULL, override_by = NULL, override_at = NULL, state = 'active',
      state_reason = NULL, state_by = NULL, state_at = moment, schedule = timing, accounted_until = moment, next_due_at = NULL, history_from = moment,
      declared = described, definition = words, overlap = 'skip', queue_cap = 100, catch_up = 'latest', catch_up_cap = 100, catch_up_window_seconds = 3600,
      start_deadline_seconds = NULL, jitter_seconds = 0, pause_after_failures = NULL, max_attempts = 1, retry_on_crash = true, schedule_rev = j.schedule_rev + 1,
      definition_rev = j.definition_rev + 1 WHERE j.id = create_job.id RETURNING * INTO made;
  END IF;
  UPDATE jobmanager.meta SET change_seq = meta.change_seq + 1 RETURNING meta.change_seq INTO made.change_seq;
  UPDATE jobmanager.jobs j SET change_seq = made.change_seq WHERE j.id = made.id;
  INSERT INTO jobmanager.audit (id, at, namespace, by, action, target, target_id, job_id, after, rev)
    VALUES (jobmanager.row_id(moment), moment, space, create_job.by, 'create', 'job', made.id, made.id, jsonb_build_object('state', 'active', 'schedule', made.schedule,
      'definition', jobmanager.presentable(words)), made.definition_rev);
  RETURN made.id;
END $$;
-- next
CREATE FUNCTION jobmanager.supersede(_run uuid, _now timestamptz) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Make way for a run of the same key: a pending one is cancelled, a running one is asked to end.
  UPDATE jobmanager.runs SET status = 'cancelled', reason = 'superseded', turn = NULL, finished_at = _now WHERE id = _run AND status = 'pending';
  UPDATE jobmanager.runs SET cancel_requested_at = _now WHERE id = _run AND status = 'running' AND cancel_requested_at IS NULL
$$;
-- next
CREATE FUNCTION jobmanager.turn_of(_job jobmanager.jobs, _key text, _now timestamptz) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
-- Whether a run that is due now holds its concurrency key or waits for it, by the overlap policy of its job; else a refusal.
-- The job's row is locked.
DECLARE
  holder jobmanager.runs;
  line uuid[];
  blocker uuid;
BEGIN
  SELECT * INTO holder FROM jobmanager.runs WHERE concurrency_key = _key AND turn = 'holds';
  SELECT array_agg(id ORDER BY priority DESC, due_at, id) INTO line FROM jobmanager.runs
   WHERE concurrency_key = _key AND turn = 'waits' AND due_at <= _now;
  blocker := coalesce(CASE WHEN _job.overlap = 'queue' THEN line[1] END, holder.id, line[1]);
  IF blocker IS NULL THEN
    RETURN 'holds';
  ELSIF _job.overlap = 'queue' AND line IS NULL OR _job.overlap = 'queue_all' AND coalesce(cardinality(line), 0) < _job.queue_cap THEN
    RETURN 'waits';
  ELSIF _job.overlap = 'cancel_running' THEN
    PERFORM jobmanager.supersede(run, _now) FROM unnest(line || holder.id) AS run;
    RETURN CASE WHEN holder.status = 'running' THEN 'waits' ELSE 'holds' END;
  END IF;
  RAISE EXCEPTION USING ERRCODE = 'object_in_use', MESSAGE = 'Job ' || quote_literal(_job.id) || ' has an active run ' || blocker
    || '; overlap = ' || quote_literal(_job.overlap) || ' allows no second one.', DETAIL = blocker::text,
    HINT = 'Wait for that run, or give the start a scope of its own.';
END $$;
-- next
CREATE FUNCTION jobmanager.enqueue(job text, payload jsonb DEFAULT NULL, priority int DEFAULT NULL, delay interval DEFAULT NULL,
  max_attempts int DEFAULT NULL, key text DEFAULT NULL, scope text DEFAULT NULL, requested_by text DEFAULT session_user) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Start a run of a job by hand, now or later, and return its id; with a key that was used before, the id of that run.
#variable_conflict use_column
DECLARE
  moment timestamptz := clock_timestamp();
  due timestamptz := moment + coalesce(enqueue.delay, interval '0');
  place text := 'Job ' || coalesce(quote_literal(left(enqueue.job, 128)), 'NULL') || ': ';
  fault text;
  help text;
  j jobmanager.jobs;
  run uuid;
  line text;
  place_in_line text;
BEGIN
  IF jsonb_typeof(enqueue.payload) <> 'object' THEN
    fault := 'the payload is no JSON object.'; help := 'Give the arguments by name, such as {"days": 7}.';
  ELSIF octet_length(enqueue.payload::text) > 65536 THEN
    fault := 'the payload has more than 65,536 bytes (64 KiB).'; help := 'Give an id, and let the handler load the rest.';
  ELSIF enqueue.priority NOT BETWEEN -32768 AND 32767 THEN
    fault := 'priority = ' || enqueue.priority || ' cannot be used.'; help := 'Use a whole number, -32,768 to 32,767.';
  ELSIF enqueue.max_attempts NOT BETWEEN 1 AND 1000 THEN
    fault := 'max_attempts = ' || enqueue.max_attempts || ' cannot be used.'; help := 'Use a whole number, 1 to 1,000.';
  ELSIF enqueue.delay NOT BETWEEN interval '0' AND interval '100 years' THEN
    fault := 'delay = ' || enqueue.delay || ' cannot be used.'; help := 'Use an interval from 0, at most a century.';
  ELSIF greatest(length(enqueue.key), length(enqueue.scope), length(enqueue.requested_by)) > 500 THEN
    fault := 'key, scope or requested_by has more than 500 characters.'; help := 'Give an id.';
  END IF;
  IF fault IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = place || fault, HINT = help;
  END IF;
  SELECT * INTO j FROM jobmanager.jobs WHERE id = enqueue.job FOR NO KEY UPDATE;
  IF j.id IS NULL OR j.state = 'deleted' THEN
    RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = 'No job ' || coalesce(quote_literal(left(enqueue.job, 128)), 'NULL')
      || ' is declared or stored.', HINT = 'Is the id right, and was a process of the application started once?';
  ELSIF j.state = 'disabled' THEN
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = place || 'it is disabled and cannot be started by hand either.',
      HINT = 'Enable it first: jobmanager jobs enable.';
  END IF;
  SELECT id INTO run FROM jobmanager.runs WHERE job_id = j.id AND idempotency_key = enqueue.key;
  IF run IS NOT NULL THEN
    RETURN run;
  END IF;
  run := jobmanager.row_id(moment);
  line := j.id || coalesce('/' || nullif(enqueue.scope, ''), '');
  -- Claims do not wait for the job's lock: a run that waited may take the key between the look and the insert.
  FOR looks IN 1..6 LOOP
    place_in_line := CASE WHEN j.overlap = 'allow' THEN NULL WHEN due > moment OR looks = 6 THEN 'waits'
      ELSE jobmanager.turn_of(j, line, moment) END;
    INSERT INTO jobmanager.runs (id, job_id, schedule_rev, ticks, status, trigger, requested_by, notify, due_at, attempt, max_attempts,
        retry_on_crash, concurrency_key, turn, priority, idempotency_key, payload, opened_at, accepted_at)
      VALUES (run, j.id, 0, 1, 'pending', 'manual', enqueue.requested_by, false, due, 0, coalesce(enqueue.max_attempts, j.max_attempts),
        j.retry_on_crash, line, place_in_line, coalesce(enqueue.priority, (j.override ->> 'priority')::int, (j.declared::jsonb ->> 'priority')::int, 0),
        enqueue.key, enqueue.payload, moment, moment)
      ON CONFLICT DO NOTHING;
    EXIT WHEN FOUND;
  END LOOP;
  RETURN run;
END $$;
-- next
REVOKE ALL ON FUNCTION jobmanager.row_id(timestamptz), jobmanager.fault_of_cron(text), jobmanager.presentable(jsonb),
  jobmanager.handlers_of(text), jobmanager.supersede(uuid, timestamptz), jobmanager.turn_of(jobmanager.jobs, text, timestamptz),
  jobmanager.create_job(text, text, text, text, jsonb, text, text),
  jobmanager.enqueue(text, jsonb, int, interval, int, text, text, text) FROM PUBLIC;
