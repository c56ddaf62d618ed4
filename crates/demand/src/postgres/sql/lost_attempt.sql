SELECT ending, digest IS NOT NULL FROM attempts
WHERE job = :job::bytea AND fence_sequence = :fence_sequence::bigint AND fence_epoch = :fence_epoch::bigint AND nonce = :nonce::bytea
