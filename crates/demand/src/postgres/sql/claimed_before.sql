SELECT 1 FROM attempts
WHERE nonce = :nonce::bytea AND agent = :agent::bytea AND incarnation = :incarnation::bytea LIMIT 1
