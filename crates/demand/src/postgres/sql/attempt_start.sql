UPDATE attempts SET started_at = coalesce(started_at, :now::bigint)
WHERE job = :job::bytea AND fence_sequence = :fence_sequence::bigint
