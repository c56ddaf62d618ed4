UPDATE attempts SET started_at = coalesce(started_at, :now)
WHERE job = :job AND fence_sequence = :fence_sequence
