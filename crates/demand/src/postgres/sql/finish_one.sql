WITH moment AS MATERIALIZED (SELECT store_now() AS now), asked AS (
    SELECT (:ids::bytea[])[1] AS id, (:fence_epochs::bigint[])[1] AS fence_epoch,
        (:fence_sequences::bigint[])[1] AS fence_sequence, (:nonces::bytea[])[1] AS nonce,
        (:successes::boolean[])[1] AS success, (:retryables::boolean[])[1] AS retryable,
        (:failed_states::text[])[1] AS failed_state, (:reasons::text[])[1] AS reason,
        (:results::text[])[1] AS result, (:copies::bigint[])[1] AS copies, (:digests::bytea[])[1] AS digest,
        (:logs::text[])[1] AS log
