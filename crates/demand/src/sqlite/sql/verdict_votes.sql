SELECT count(DISTINCT voter), min(verdict = 'closed') FROM verdicts
WHERE agent = :agent AND incarnation = :incarnation AND at >= :oldest
