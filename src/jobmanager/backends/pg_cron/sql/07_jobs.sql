-- The jobs table in step: entries follow it in the same transaction, and an edit made in SQL settles the old account first.

CREATE OR REPLACE FUNCTION jobmanager.entry_follows() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- A job without pg_cron is still a job: what cannot be scheduled is a warning here, and a finding of `jobmanager doctor`.
BEGIN
  IF current_setting('jobmanager.defer_entries', true) = 'on'
     OR NOT EXISTS (SELECT FROM jobmanager.tickers WHERE layout = 'entries') THEN
    RETURN NULL;
  ELSIF NOT jobmanager.has_table('cron', 'job') THEN
    RAISE undefined_table USING MESSAGE = 'this database has no pg_cron';
  END IF;
  IF TG_OP <> 'INSERT' THEN
    PERFORM jobmanager.sync_entries(jobmanager.entry_name(OLD.id));
  END IF;
  IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND NEW.id <> OLD.id THEN
    PERFORM jobmanager.sync_entries(jobmanager.entry_name(NEW.id));
  END IF;
  RETURN NULL;
EXCEPTION WHEN undefined_table OR invalid_schema_name OR undefined_function OR insufficient_privilege THEN
  RAISE WARNING 'pg_cron''s entry of job % is not up to date: %', coalesce(NEW.id, OLD.id), SQLERRM;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.override_of(_schedule text) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
-- What an operator says with this schedule, in the words of the declaration, so that no deployment takes it back.
  SELECT CASE
    WHEN _schedule ~ '^cron .+ in \S+' THEN jsonb_strip_nulls(jsonb_build_object(
      'cron', substring(timing FROM '^cron (.+) in \S+$'), 'timezone', substring(timing FROM ' in (\S+)$'),
      'dst', coalesce(substring(_schedule FROM ' dst (\S+)'), 'end,first'),
      'exclude', substring(endless FROM ' except (.+)$'), 'until', substring(_schedule FROM ' until (\S+)$')))
    WHEN timing ~ '^every \d+s$' THEN jsonb_strip_nulls(jsonb_build_object('every', substring(timing FROM '\d+')::int,
      'exclude', substring(endless FROM ' except (.+)$'), 'until', substring(_schedule FROM ' until (\S+)$')))
    ELSE '{}' END
    FROM (SELECT regexp_replace(_schedule, '( dst \S+)?( except .+)?( until \S+)?$', '') AS timing,
                 regexp_replace(_schedule, ' until \S+$', '') AS endless) AS parts
$$;

CREATE OR REPLACE FUNCTION jobmanager.edited_in_sql() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- The library moves the revision with every change of state or schedule. A change without it is an operator's, at a SQL prompt.
DECLARE
  moment timestamptz := clock_timestamp();
  status text := CASE WHEN NEW.state = 'active' THEN 'pending' ELSE 'skipped' END;
BEGIN
  IF OLD.state = 'active' AND OLD.next_due_at <= moment THEN
    INSERT INTO jobmanager.runs (id, job_id, schedule_rev, scheduled_for, ticks, status, reason, trigger, notify, due_at,
      attempt, max_attempts, retry_on_crash, concurrency_key, priority, opened_at, accepted_at, finished_at)
    SELECT jobmanager.new_id(moment), OLD.id, OLD.schedule_rev, tick, 1, status, CASE WHEN status = 'skipped' THEN
        CASE NEW.state WHEN 'paused' THEN 'paused' ELSE 'disabled' END END, 'schedule', false, tick, 0, OLD.max_attempts,
        OLD.retry_on_crash, OLD.id, 0, moment, CASE WHEN status = 'skipped' THEN moment END, CASE WHEN status = 'skipped' THEN moment END
      FROM jobmanager.ticks(OLD.schedule, OLD.next_due_at - interval '1 microsecond', moment, 5000) AS t(tick)
    ON CONFLICT DO NOTHING;
  END IF;
  IF NEW.schedule IS DISTINCT FROM OLD.schedule THEN
    NEW.override := coalesce(nullif(NEW.override, 'null'), '{}') - 'cron' - 'every' - 'timezone' - 'dst' - 'until' - 'exclude' - 'max_runs'
      || jobmanager.override_of(NEW.schedule) || CASE WHEN NEW.declared ~ '"max_runs":\d' THEN '{"max_runs": null}' ELSE '{}' END::jsonb;
    NEW.override_at := moment;
    NEW.override_by := session_user;
  END IF;
  IF NEW.state IS DISTINCT FROM OLD.state THEN
    NEW.state_at := moment;
    NEW.state_by := CASE WHEN NEW.state_by IS DISTINCT FROM OLD.state_by THEN NEW.state_by ELSE session_user END;
    IF NEW.state NOT IN ('active', 'paused') THEN
      UPDATE jobmanager.runs SET status = CASE WHEN attempt = 0 AND scheduled_for IS NOT NULL THEN 'skipped' ELSE 'cancelled' END,
        reason = 'disabled', turn = NULL, finished_at = moment WHERE job_id = NEW.id AND runs.status = 'pending'
          AND (NEW.state = 'deleted' OR coalesce(runs.reason, '') NOT IN ('sleeping', 'waiting', 'children'));
    END IF;
  END IF;
  NEW.schedule_rev := OLD.schedule_rev + 1;
  NEW.definition_rev := OLD.definition_rev + 1;
  NEW.accounted_until := greatest(OLD.accounted_until, moment);
  -- Without a plan: at the end of the account, where no tick can be, until the application has planned the new schedule.
  NEW.next_due_at := CASE WHEN NEW.state IN ('active', 'paused')
    THEN jobmanager.next_due(NEW.schedule, moment, NEW.accounted_until) END;
  UPDATE jobmanager.meta SET change_seq = change_seq + 1 RETURNING change_seq INTO NEW.change_seq;
  RETURN NEW;
END $$;

DROP TRIGGER IF EXISTS entry_follows ON jobmanager.jobs;
CREATE TRIGGER entry_follows AFTER INSERT OR DELETE ON jobmanager.jobs FOR EACH ROW EXECUTE FUNCTION jobmanager.entry_follows();
DROP TRIGGER IF EXISTS entry_follows_change ON jobmanager.jobs;
CREATE TRIGGER entry_follows_change AFTER UPDATE OF id, namespace, schedule, state ON jobmanager.jobs FOR EACH ROW
  WHEN ((OLD.id, OLD.namespace, OLD.schedule, OLD.state) IS DISTINCT FROM (NEW.id, NEW.namespace, NEW.schedule, NEW.state))
  EXECUTE FUNCTION jobmanager.entry_follows();
DROP TRIGGER IF EXISTS edited_in_sql ON jobmanager.jobs;
CREATE TRIGGER edited_in_sql BEFORE UPDATE OF schedule, state ON jobmanager.jobs FOR EACH ROW
  WHEN (OLD.schedule_rev = NEW.schedule_rev AND (OLD.schedule, OLD.state) IS DISTINCT FROM (NEW.schedule, NEW.state))
  EXECUTE FUNCTION jobmanager.edited_in_sql();
