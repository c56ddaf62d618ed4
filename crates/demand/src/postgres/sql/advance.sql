UPDATE jobs SET state = :state::text, unlisted = 0, changed_at = :now::bigint
WHERE id = :id::bytea AND state IN ('assigned', 'preparing', 'running')
    AND fence_epoch = :fence_epoch::bigint AND fence_sequence = :fence_sequence::bigint AND nonce = :nonce::bytea
