UPDATE attempts SET ended_at = :now, ending = 'cancelled' WHERE job = :job AND ending IS NULL
