UPDATE jobs SET state = 'cancelled', reason = :reason::text, finished_at = :now::bigint, changed_at = :now::bigint
WHERE id = :id::bytea
    AND state IN ('awaiting_input', 'queued', 'assigned', 'preparing', 'running')
