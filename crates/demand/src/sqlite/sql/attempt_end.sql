UPDATE attempts SET ended_at = :now, ending = :ending
WHERE job = :job AND fence_sequence = :fence_sequence AND ending IS NULL
