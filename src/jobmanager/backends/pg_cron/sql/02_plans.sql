-- When a job is due, by the plan that the application made of its schedule.

CREATE OR REPLACE FUNCTION jobmanager.next_tick(_schedule text, _after timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- Return the first instant strictly after; NULL if there is none, or none is planned.
DECLARE
  s jobmanager.schedules;
  instant timestamptz;
  day date := (_after AT TIME ZONE 'UTC')::date;
  minute int := extract(hour FROM _after AT TIME ZONE 'UTC') * 60 + extract(minute FROM _after AT TIME ZONE 'UTC');
BEGIN
  SELECT * INTO s FROM jobmanager.schedules WHERE schedule = _schedule;
  IF s.kind = 'at' THEN
    RETURN CASE WHEN s.first_at > _after THEN s.first_at END;
  ELSIF s.kind = 'every' THEN
    instant := s.first_at + (floor(extract(epoch FROM _after - s.first_at) / s.step) + 1)::float8 * s.step * interval '1 second';
    RETURN CASE WHEN instant <= coalesce(substring(_schedule FROM ' until (\S+)$')::timestamptz, 'infinity') THEN instant END;
  END IF;
  RETURN (
    SELECT min(found.instant) AT TIME ZONE 'UTC' FROM (
      SELECT day + (minute + position(B'1' IN substring(minutes FROM minute + 2))) * interval '1 minute' AS instant
        FROM jobmanager.plans
       WHERE schedule = _schedule AND days @> day AND position(B'1' IN substring(minutes FROM minute + 2)) > 0
      UNION ALL
      SELECT lower(days * datemultirange(daterange(day + 1, NULL))) + (position(B'1' IN minutes) - 1) * interval '1 minute'
        FROM jobmanager.plans WHERE schedule = _schedule) found);
END $$;

CREATE OR REPLACE FUNCTION jobmanager.ticks(_schedule text, _after timestamptz, _until timestamptz, _most int)
RETURNS SETOF timestamptz LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  instant timestamptz := jobmanager.next_tick(_schedule, _after);
BEGIN
  WHILE instant <= _until AND _most > 0 LOOP
    RETURN NEXT instant;
    instant := jobmanager.next_tick(_schedule, instant);
    _most := _most - 1;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.lacks_plan(_schedule text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- Return whether no plan of this schedule holds for ever: where its plan names no instant, there may be one all the same.
  SELECT _schedule <> 'none' AND NOT EXISTS (
    SELECT FROM jobmanager.schedules s WHERE s.schedule = _schedule AND s.planned_until = 'infinity')
$$;

CREATE OR REPLACE FUNCTION jobmanager.next_due(_schedule text, _after timestamptz, _unplanned timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- When a job is due next. `_unplanned` where no plan says it: NULL would mean never, and nothing would look at the job again.
  SELECT coalesce(jobmanager.next_tick(_schedule, _after), CASE WHEN jobmanager.lacks_plan(_schedule) THEN _unplanned END)
$$;
