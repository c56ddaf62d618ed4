UPDATE jobs
SET state = 'queued', reason = :reason::text, waits_until = :now::bigint + expires_ms, changed_at = :now::bigint
WHERE id = :id::bytea AND state || '' IN ('assigned', 'preparing', 'running')
    AND fence_epoch = :fence_epoch::bigint AND fence_sequence = :fence_sequence::bigint AND nonce = :nonce::bytea
    AND agent = :agent::bytea
    AND namespace = ANY(:namespaces::text[])
