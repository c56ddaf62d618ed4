INSERT INTO store (singleton, id, epoch, epoch_token, epoch_began, system_id, timeline, grace_until)
VALUES (1, :id::bytea, store_now(), :token::bytea, store_now(), :system_id::text, :timeline::text, 0)
ON CONFLICT (singleton) DO UPDATE
SET epoch = greatest(store.epoch + 1, excluded.epoch), epoch_token = excluded.epoch_token,
    epoch_began = excluded.epoch_began, system_id = excluded.system_id,
    timeline = excluded.timeline, grace_until = store_now() + :lease_ms::bigint
RETURNING id, epoch
