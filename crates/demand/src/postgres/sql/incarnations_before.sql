SELECT incarnation FROM leases WHERE agent = :agent::bytea AND incarnation < :incarnation::bytea AND NOT revoked
