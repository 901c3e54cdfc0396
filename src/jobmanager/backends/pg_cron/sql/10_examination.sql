-- What only the owner can see, for `jobmanager doctor`: no key, and no command of anybody else.

CREATE OR REPLACE FUNCTION jobmanager.examined_keys(_namespace text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- How many there are, how many of them can be a bearer token, and since when there has been more than one.
  SELECT jsonb_build_object('live', count(DISTINCT ipad), 'bearers', count(bearer), 'more_since', (
      SELECT max(k.created_at) FROM jobmanager.signing_keys k WHERE k.namespace = _namespace AND k.retired_at IS NULL HAVING count(DISTINCT k.ipad) > 1))
    FROM jobmanager.live_keys(_namespace)
$$;

CREATE OR REPLACE FUNCTION jobmanager.examined_entries(_path text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Ours with how each last ended, those others that call `_path` themselves, and pg_cron's settings and size. Step by step:
-- pg_cron's tables are never analysed, so the planner takes thousands of entries for a few, and a join of it all would loop.
DECLARE
  found jsonb := jsonb_build_object(
    'settings', (SELECT coalesce(jsonb_object_agg(s.name, s.setting), '{}') FROM pg_settings s WHERE s.name LIKE 'cron.%'));
  errors jsonb;
BEGIN
  WITH ended AS MATERIALIZED (
    SELECT DISTINCT ON (d.jobid) d.jobid, d.status, d.return_message FROM cron.job_run_details d
     WHERE d.runid > (SELECT max(runid) - 20000 FROM cron.job_run_details) AND d.status IN ('succeeded', 'failed')
     ORDER BY d.jobid, d.runid DESC)
  SELECT coalesce(jsonb_object_agg(c.jobname, left(jobmanager.redacted(coalesce(e.return_message, '')), 300)), '{}') INTO errors
    FROM ended e JOIN cron.job c USING (jobid)
   WHERE e.status = 'failed' AND c.jobname IS NOT NULL AND c.username = current_user AND c.database = current_database();
  RETURN found || jsonb_build_object('entries', (
    SELECT coalesce(jsonb_agg(jsonb_build_object('name', l.name, 'schedule', l.schedule, 'orphan', l.orphan, 'error', errors ->> l.name,
        'drift', CASE WHEN l.drift = 'not in pg_cron' AND EXISTS (SELECT FROM cron.job c WHERE c.jobname = l.name
            AND c.username = current_user AND c.database = current_database()) THEN 'commands something else' ELSE l.drift END)
        ORDER BY l.name), '[]') FROM jobmanager.list_entries() l),
  'callers', (
    SELECT coalesce(jsonb_agg(jsonb_build_object('id', c.jobid, 'name', c.jobname, 'secret', jobmanager.redacted(c.command) <> c.command)
        ORDER BY c.jobid), '[]')
      FROM cron.job c WHERE c.active AND c.command ~* '\mhttp(_post|_get)?\s*\(' AND position(_path IN c.command) > 0),
  'bytes', pg_total_relation_size('cron.job_run_details'));
EXCEPTION WHEN undefined_table OR invalid_schema_name OR insufficient_privilege THEN
  RETURN found || jsonb_build_object('error', SQLERRM);
END $$;
