SELECT ending, digest IS NOT NULL FROM attempts
WHERE job = :job AND fence_sequence = :fence_sequence AND fence_epoch = :fence_epoch AND nonce = :nonce
