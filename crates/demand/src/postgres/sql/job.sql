SELECT id, namespace, client_key, subject, sealing, spec, state, reason, created_at, queued_at,
    finished_at, counted, input, checkpoint, checkpoint_before, result
FROM jobs WHERE id = :id::bytea
