UPDATE attempts
SET ended_at = :now, ending = :ending, digest = :digest, disposition = :disposition,
    reply_state = :reply_state, log = :log
WHERE job = :job AND fence_sequence = :fence_sequence
