INSERT INTO store (singleton, id, epoch, epoch_token, epoch_began)
VALUES (1, :id, :now, :token, :now)
ON CONFLICT (singleton) DO UPDATE
SET epoch = max(epoch + 1, excluded.epoch), epoch_token = excluded.epoch_token,
    epoch_began = excluded.epoch_began
RETURNING id, epoch
