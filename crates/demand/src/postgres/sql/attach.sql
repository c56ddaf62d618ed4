UPDATE jobs
SET input = :input::text, state = 'queued', rank = :now::bigint - priority * 60000, queued_at = :now::bigint,
    waits_until = :now::bigint + expires_ms, changed_at = :now::bigint
WHERE id = :id::bytea AND state = 'awaiting_input'
