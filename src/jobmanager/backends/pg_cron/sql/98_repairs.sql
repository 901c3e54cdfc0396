-- What an earlier release left behind, mended when this one is installed.

-- Bytes of answers that are no characters: in the calls, and in the runs that were missed for want of a better answer.
UPDATE jobmanager.runs r SET error = jsonb_set(r.error, '{message}', to_jsonb(concat_ws(': ', c.outcome, jobmanager.readable(c.detail))))
  FROM jobmanager.run_calls rc JOIN jobmanager.calls c ON c.id = rc.call_id
 WHERE rc.run_id = r.id AND r.reason = 'transport' AND r.error IS NOT NULL AND c.detail IS DISTINCT FROM jobmanager.readable(c.detail);
UPDATE jobmanager.calls SET detail = jobmanager.readable(detail) WHERE detail IS DISTINCT FROM jobmanager.readable(detail);
