-- What other languages call to say that something has happened, with the checks and the meaning of `jobs.send_event`.
-- It has its owner's rights, as `enqueue` has. Frozen, as the revision that makes it.

CREATE FUNCTION jobmanager.send_event(name text, data jsonb DEFAULT NULL, key text DEFAULT '', id text DEFAULT NULL,
  namespace text DEFAULT 'default', by text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Keep the event, and make the runs due that wait for it; a process that has the jobs with `on=` starts them. Return its id.
#variable_conflict use_column
DECLARE
  moment timestamptz := clock_timestamp();
  place text := 'Event ' || coalesce(quote_literal(left(send_event.name, 128)), 'NULL') || ': ';
  its_key text := coalesce(send_event.key, '');
  its_id text := coalesce(send_event.id, jobmanager.row_id(moment)::text);
  space text := coalesce(send_event.namespace, 'default');
  fault text;
  help text;
BEGIN
  IF coalesce(length(send_event.name), 0) NOT BETWEEN 1 AND 200 THEN
    fault := 'the name has not 1 to 200 characters.'; help := 'Name what has happened, such as user/created.';
  ELSIF length(its_id) NOT BETWEEN 1 AND 200 OR length(its_key) > 200 THEN
    fault := 'the id is empty, or it or the key has more than 200 characters.'; help := 'Leave them out, or give the id of a thing.';
  ELSIF octet_length(send_event.data::text) > 65536 THEN
    fault := 'the data has more than 65,536 bytes (64 KiB).'; help := 'Give an id, and let the handler load the rest.';
  ELSIF length(send_event.by) > 500 THEN
    fault := 'by has more than 500 characters.'; help := 'Give a name.';
  END IF;
  IF fault IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = place || fault, HINT = help;
  END IF;
  -- A wait goes on from the moment of the event before, so each has a moment of its own.
  SELECT greatest(moment, max(e.sent_at) + interval '1 microsecond') INTO moment FROM jobmanager.events e
   WHERE e.namespace = space AND e.name = send_event.name AND e.key = its_key;
  INSERT INTO jobmanager.events (namespace, id, name, key, data, sent_at)
    VALUES (space, its_id, send_event.name, its_key, send_event.data, moment) ON CONFLICT DO NOTHING;
  IF FOUND THEN
    UPDATE jobmanager.runs r SET due_at = moment, dispatched_at = NULL FROM jobmanager.jobs j
     WHERE r.status = 'pending' AND r.reason = 'waiting' AND r.due_at > moment AND j.id = r.job_id AND j.namespace = space
       AND EXISTS (SELECT FROM jobmanager.run_steps s WHERE s.run_id = r.id AND s.event_name = send_event.name AND s.event_key = its_key
         AND s.status = 'waiting' AND s.event_after < moment);
  END IF;
  IF send_event.by IS NOT NULL THEN
    INSERT INTO jobmanager.audit (id, at, namespace, by, action, target, target_id, after)
      VALUES (jobmanager.row_id(moment), moment, space, send_event.by, 'send', 'event', its_id,
        jsonb_build_object('name', send_event.name, 'key', its_key));
  END IF;
  RETURN its_id;
END $$;
-- next
REVOKE ALL ON FUNCTION jobmanager.send_event(text, jsonb, text, text, text, text) FROM PUBLIC;
