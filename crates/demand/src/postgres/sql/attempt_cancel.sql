UPDATE attempts SET ended_at = :now::bigint, ending = 'cancelled' WHERE job = :job::bytea AND ending IS NULL
