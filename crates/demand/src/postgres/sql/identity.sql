SELECT system_identifier::text, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
FROM pg_control_system()
