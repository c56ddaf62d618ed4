UPDATE jobs
SET state = 'expired', reason = :reason::text, finished_at = :now::bigint, changed_at = :now::bigint
WHERE id IN (
    SELECT id FROM jobs
    WHERE state IN ('queued', 'awaiting_input') AND waits_until <= :now::bigint
    ORDER BY waits_until LIMIT :limit::bigint FOR UPDATE SKIP LOCKED)
RETURNING id, namespace
