-- A holder's death: its claims end in this one statement, each counted, queued first or buried.
UPDATE jobs
SET state = iif(counted < retries, 'queued', 'dead'),
    counted = counted + 1,
    rank = iif(rank < -5000000000000, rank, rank - 10000000000000),
    reason = :reason,
    finished_at = iif(counted < retries, NULL, :now),
    waits_until = :now + expires_ms,
    changed_at = :now
WHERE agent = :agent AND incarnation = :incarnation
    AND state IN ('assigned', 'preparing', 'running')
    AND NOT (:spare_exclusive AND exclusive)
    AND (:everywhere OR namespace IN (SELECT value FROM json_each(:namespaces)))
RETURNING id, fence_sequence, state
