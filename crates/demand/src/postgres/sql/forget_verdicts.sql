DELETE FROM verdicts WHERE at < :oldest::bigint
