UPDATE attempts SET repeats = repeats + 1
WHERE job = :job::bytea AND fence_sequence = :fence_sequence::bigint AND fence_epoch = :fence_epoch::bigint
    AND nonce || '' = :nonce::bytea AND agent = :agent::bytea AND digest IS NOT NULL
RETURNING digest, disposition, reply_state
