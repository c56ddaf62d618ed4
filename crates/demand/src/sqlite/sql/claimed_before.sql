SELECT 1 FROM attempts
WHERE nonce = :nonce AND agent = :agent AND incarnation = :incarnation LIMIT 1
