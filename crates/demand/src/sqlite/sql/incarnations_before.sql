SELECT incarnation FROM leases WHERE agent = :agent AND incarnation < :incarnation AND NOT revoked
