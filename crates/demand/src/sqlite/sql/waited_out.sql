UPDATE jobs
SET state = 'expired', reason = :reason, finished_at = :now, changed_at = :now
WHERE number IN (
    SELECT number FROM jobs
    WHERE state IN ('queued', 'awaiting_input') AND waits_until <= :now
    ORDER BY waits_until LIMIT :limit)
RETURNING id, namespace
