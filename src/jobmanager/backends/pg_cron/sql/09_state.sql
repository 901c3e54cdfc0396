-- What is not as it should be, in one question: a process that starts asks it, and writes nothing if all is well.

CREATE OR REPLACE FUNCTION jobmanager.drift(_namespace text, _schedules text[], _tzdata text, _until date,
  OUT unplanned text[], OUT unready boolean, OUT entries boolean, OUT ticker jsonb, OUT keys int)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  SELECT coalesce(array_agg(wanted), '{}') INTO unplanned FROM unnest(_schedules) AS wanted
    LEFT JOIN jobmanager.schedules s ON s.schedule = wanted
   WHERE s.schedule IS NULL OR s.planned_until < _until OR s.tzdata NOT IN ('', _tzdata)
      OR EXISTS (SELECT FROM jobmanager.parked p JOIN jobmanager.jobs j ON j.id = p.job_id WHERE j.schedule = wanted);
  unready := jobmanager.needs_planning(_namespace);
  SELECT to_jsonb(t) - 'pruned_at' INTO ticker FROM jobmanager.tickers t WHERE t.namespace = _namespace;
  SELECT count(*) INTO keys FROM jobmanager.live_keys(_namespace);
  entries := false;
  IF jobmanager.has_table('cron', 'job') THEN
    entries := jobmanager.host_is_unsure()
      OR EXISTS (SELECT FROM jobmanager.our_entries() o FULL JOIN jobmanager.wanted_entries() w USING (name)
      WHERE o.name IS NULL OR w.name IS NULL OR NOT o.active OR o.place <> '' OR (o.schedule, o.command) IS DISTINCT FROM (w.schedule, w.command));
  END IF;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.put_plans(_schedules jsonb, _plans jsonb) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Plans made by the application, in place of what was planned of these schedules before.
  WITH put AS (
    INSERT INTO jobmanager.schedules AS s
      SELECT * FROM jsonb_to_recordset(_schedules) AS n(schedule text, kind text, first_at timestamptz, step bigint, wakeup text,
        planned_until date, tzdata text) ORDER BY schedule
    ON CONFLICT (schedule) DO UPDATE SET kind = excluded.kind, first_at = excluded.first_at, step = excluded.step,
      wakeup = excluded.wakeup, planned_until = excluded.planned_until, tzdata = excluded.tzdata),
  fewer AS (
    DELETE FROM jobmanager.plans p USING jsonb_to_recordset(_schedules) AS n(schedule text, rows int)
     WHERE p.schedule = n.schedule AND p.n >= n.rows)
  INSERT INTO jobmanager.plans AS p
    SELECT schedule, n, minutes::bit(1440), days::datemultirange
      FROM jsonb_to_recordset(_plans) AS n(schedule text, n int, minutes text, days text) ORDER BY schedule, n
  ON CONFLICT (schedule, n) DO UPDATE SET minutes = excluded.minutes, days = excluded.days
$$;

CREATE OR REPLACE FUNCTION jobmanager.go_on(_namespace text) RETURNS int
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Resume the jobs that have a plan again, from where their account ends; returns how many. Those without one stay parked.
  WITH waiting AS MATERIALIZED (
    SELECT j.*, p.error, jobmanager.next_tick(j.schedule, j.accounted_until) AS following FROM jobmanager.jobs j
      LEFT JOIN jobmanager.parked p ON p.job_id = j.id
     WHERE j.namespace = _namespace AND j.state IN ('active', 'paused') AND j.schedule <> 'none'
       AND (p.error = 'plan_exhausted' OR p.error IS NULL AND (j.next_due_at IS NULL OR j.next_due_at <= j.accounted_until))),
  freed AS (
    DELETE FROM jobmanager.parked p USING jobmanager.jobs j WHERE j.id = p.job_id AND j.namespace = _namespace
      AND NOT EXISTS (SELECT FROM waiting w WHERE w.id = j.id AND w.following IS NULL AND jobmanager.lacks_plan(j.schedule))),
  going AS (
    UPDATE jobmanager.jobs j SET next_due_at = w.due FROM (
        SELECT id, following, jobmanager.next_due(schedule, accounted_until, coalesce(next_due_at, accounted_until)) AS due FROM waiting) w
     WHERE j.id = w.id AND j.next_due_at IS DISTINCT FROM w.due RETURNING w.following)
  SELECT count(following)::int FROM going
$$;

CREATE OR REPLACE FUNCTION jobmanager.put_ticker(_namespace text, _transport text, _layout text, _auth text, _url text, _timeout_ms int)
RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- How this application is reached. Keys are another matter: no start ever touches them. Where the secret itself is sent, and that it
-- is, only the owner says: any other role could have it sent to itself.
BEGIN
  IF _auth = 'bearer' AND NOT pg_has_role(session_user, current_user, 'MEMBER') AND NOT EXISTS (
      SELECT FROM jobmanager.tickers t WHERE t.namespace = _namespace AND t.auth = 'bearer' AND t.url IS NOT DISTINCT FROM _url) THEN
    RAISE insufficient_privilege USING MESSAGE = format('only role %I may have bearer tokens of namespace %s sent, or sent elsewhere',
      current_user, quote_literal(_namespace)), HINT = 'Run `jobmanager init` as that role.';
  END IF;
  INSERT INTO jobmanager.tickers (namespace, transport, layout, auth, url, timeout_ms)
    VALUES (_namespace, _transport, _layout, _auth, _url, _timeout_ms)
  ON CONFLICT (namespace) DO UPDATE SET transport = excluded.transport, layout = excluded.layout, auth = excluded.auth,
    url = excluded.url, timeout_ms = excluded.timeout_ms;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.announced_runs(_namespace text)
RETURNS TABLE (run_id uuid, job_id text, scheduled_for timestamptz, schedule_rev int)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT r.id, r.job_id, r.scheduled_for, r.schedule_rev FROM jobmanager.runs r JOIN jobmanager.jobs j ON j.id = r.job_id
   WHERE r.status = 'pending' AND r.accepted_at IS NULL AND r.due_at <= clock_timestamp() AND j.namespace = _namespace
   ORDER BY r.due_at, r.id LIMIT 5000
$$;
