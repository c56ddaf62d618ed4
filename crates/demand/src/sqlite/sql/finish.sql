UPDATE jobs
SET state = CASE
        WHEN :success THEN 'succeeded'
        WHEN :retryable AND counted < retries THEN 'queued'
        ELSE :failed_state END,
    counted = counted + NOT :success,
    reason = :reason,
    result = CASE WHEN :retryable AND counted < retries THEN result ELSE :result END,
    finished_at = CASE WHEN :retryable AND counted < retries THEN NULL ELSE :now END,
    waits_until = :now + expires_ms,
    changed_at = :now
WHERE id = :id AND state IN ('assigned', 'preparing', 'running')
    AND fence_epoch = :fence_epoch AND fence_sequence = :fence_sequence AND nonce = :nonce
    AND agent = :agent
    AND :copies >= result_copies
RETURNING state
