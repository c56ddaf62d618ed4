UPDATE jobs
SET state = 'queued', reason = :reason, waits_until = :now + expires_ms, changed_at = :now
WHERE id = :id AND state IN ('assigned', 'preparing', 'running')
    AND fence_epoch = :fence_epoch AND fence_sequence = :fence_sequence AND nonce = :nonce
    AND (:agent IS NULL OR agent = :agent)
