DELETE FROM verdicts WHERE at < :oldest
