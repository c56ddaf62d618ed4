SELECT revoked, heard_at FROM leases WHERE agent = :agent AND incarnation = :incarnation
