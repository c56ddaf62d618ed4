-- A repeat is answered from a transaction that itself writes (DESIGN §3.7).
UPDATE jobs SET repeats = repeats + 1 WHERE id = :id::bytea
