UPDATE jobs
SET state = CASE
        WHEN :success::boolean THEN 'succeeded'
        WHEN :retryable::boolean AND counted < retries THEN 'queued'
        ELSE :failed_state::text END,
    counted = counted + CASE WHEN :success::boolean THEN 0 ELSE 1 END,
    reason = :reason::text,
    result = CASE WHEN :retryable::boolean AND counted < retries THEN result ELSE :result::text END,
    finished_at = CASE WHEN :retryable::boolean AND counted < retries THEN NULL ELSE :now::bigint END,
    waits_until = :now::bigint + expires_ms,
    changed_at = :now::bigint
WHERE id = :id::bytea AND state IN ('assigned', 'preparing', 'running')
    AND fence_epoch = :fence_epoch::bigint AND fence_sequence = :fence_sequence::bigint AND nonce = :nonce::bytea
    AND agent = :agent::bytea
    AND namespace = ANY(:namespaces::text[])
    AND :copies::bigint >= result_copies
RETURNING state
