UPDATE attempts
SET ended_at = :now::bigint, ending = :ending::text, digest = :digest::bytea, disposition = :disposition::text,
    reply_state = :reply_state::text, log = :log::text
WHERE job = :job::bytea AND fence_sequence = :fence_sequence::bigint
