DELETE FROM events
WHERE sequence IN (SELECT sequence FROM events ORDER BY sequence LIMIT 1000) AND at < :oldest::bigint
