UPDATE jobs SET unlisted = unlisted + 1
WHERE id = :id::bytea AND state IN ('assigned', 'preparing', 'running')
    AND fence_epoch = :fence_epoch::bigint AND fence_sequence = :fence_sequence::bigint AND nonce = :nonce::bytea
