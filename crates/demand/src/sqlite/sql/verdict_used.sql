SELECT 1 FROM verdicts WHERE nonce = :nonce
