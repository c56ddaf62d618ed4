WITH moment AS MATERIALIZED (SELECT store_now() AS now), asked AS (
    SELECT * FROM unnest(:ids::bytea[], :fence_epochs::bigint[], :fence_sequences::bigint[], :nonces::bytea[],
            :successes::boolean[], :retryables::boolean[], :failed_states::text[], :reasons::text[],
            :results::text[], :copies::bigint[], :digests::bytea[], :logs::text[])
        AS asked (id, fence_epoch, fence_sequence, nonce, success, retryable, failed_state, reason,
            result, copies, digest, log)
