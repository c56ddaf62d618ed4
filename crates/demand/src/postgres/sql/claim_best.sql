        AND cpu_millis <= :cpu_millis::bigint AND memory_bytes <= :memory_bytes::bigint
        AND gpus <= :gpus::bigint AND scratch_bytes <= :scratch_bytes::bigint
        AND classes & :classes::bigint <> 0
        AND (waits_until > moment.now OR moment.now < moment.grace_until)
        AND (labels IS NULL OR labels <@ :labels::text::jsonb)
        AND NOT EXISTS (
            SELECT FROM attempts
            WHERE nonce = :nonce::bytea AND agent = :agent::bytea AND incarnation = :incarnation::bytea)
    ORDER BY rank, id LIMIT 1
    FOR UPDATE OF jobs SKIP LOCKED
), lease AS (
    INSERT INTO leases (agent, incarnation, expires_at, heard_at)
    SELECT :agent::bytea, :incarnation::bytea, now + :lease_ms::bigint, now
    FROM moment, best
    WHERE NOT EXISTS (SELECT FROM superseded WHERE agent = :agent::bytea AND floor > :incarnation::bytea)
    ON CONFLICT (agent, incarnation) DO UPDATE
    SET expires_at = excluded.expires_at, heard_at = excluded.heard_at
    WHERE NOT leases.revoked
    RETURNING 1
), claimed AS (
    UPDATE jobs
    SET state = 'assigned', fence_epoch = moment.epoch, fence_sequence = fence_sequence + 1, nonce = :nonce::bytea,
        agent = :agent::bytea, incarnation = :incarnation::bytea, unlisted = 0, checkpoint_wanted = false,
        reason = NULL, changed_at = moment.now
    FROM best, lease, moment
    WHERE jobs.id = best.id
    RETURNING jobs.id, namespace, spec, fence_epoch, fence_sequence, input, checkpoint, checkpoint_before, sealing,
        moment.now
), begun AS (
    INSERT INTO attempts (job, fence_sequence, fence_epoch, nonce, agent, incarnation, agent_url, claimed_at)
    SELECT id, fence_sequence, fence_epoch, :nonce::bytea, :agent::bytea, :incarnation::bytea, :agent_url::text, now
    FROM claimed
)
SELECT * FROM claimed
