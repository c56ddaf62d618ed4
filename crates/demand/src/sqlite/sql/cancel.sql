UPDATE jobs SET state = 'cancelled', reason = :reason, finished_at = :now, changed_at = :now
WHERE id = :id
    AND state IN ('awaiting_input', 'queued', 'assigned', 'preparing', 'running')
