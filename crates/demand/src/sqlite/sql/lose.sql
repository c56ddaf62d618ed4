UPDATE jobs
SET state = iif(counted < retries, 'queued', 'dead'),
    counted = counted + 1,
    rank = iif(rank < -5000000000000, rank, rank - 10000000000000),
    reason = :reason,
    finished_at = iif(counted < retries, NULL, :now),
    waits_until = :now + expires_ms,
    changed_at = :now
WHERE id = :id AND state IN ('assigned', 'preparing', 'running')
    AND fence_sequence = :fence_sequence
RETURNING state
