SELECT revoked, heard_at FROM leases WHERE agent = :agent::bytea AND incarnation = :incarnation::bytea
