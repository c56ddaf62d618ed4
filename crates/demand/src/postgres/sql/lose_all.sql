-- A holder's death: its claims end in this one statement, each counted, queued first or buried.
UPDATE jobs
SET state = CASE WHEN counted < retries THEN 'queued' ELSE 'dead' END,
    counted = counted + 1,
    rank = CASE WHEN rank < -5000000000000 THEN rank ELSE rank - 10000000000000 END,
    reason = :reason::text,
    finished_at = CASE WHEN counted < retries THEN NULL ELSE :now::bigint END,
    waits_until = :now::bigint + expires_ms,
    changed_at = :now::bigint
WHERE agent = :agent::bytea AND incarnation = :incarnation::bytea
    AND state IN ('assigned', 'preparing', 'running')
    AND NOT (:spare_exclusive::boolean AND exclusive)
    AND (:everywhere::boolean OR namespace = ANY(:namespaces::text[]))
RETURNING id, fence_sequence, state
