UPDATE jobs
SET input = :input, state = 'queued', rank = :now - priority * 60000, queued_at = :now,
    waits_until = :now + expires_ms, changed_at = :now
WHERE id = :id AND state = 'awaiting_input'
