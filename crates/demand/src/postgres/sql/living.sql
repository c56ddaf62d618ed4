-- Whether an incarnation was declared dead or superseded.
SELECT EXISTS (SELECT FROM leases WHERE agent = :agent::bytea AND incarnation = :incarnation::bytea AND revoked)
    OR EXISTS (SELECT FROM superseded WHERE agent = :agent::bytea AND floor > :incarnation::bytea)
