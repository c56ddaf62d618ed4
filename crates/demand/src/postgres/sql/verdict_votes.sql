SELECT count(DISTINCT voter), coalesce(bool_and(verdict = 'closed'), false) FROM verdicts
WHERE agent = :agent::bytea AND incarnation = :incarnation::bytea AND at >= :oldest::bigint
