SELECT 1 FROM superseded WHERE agent = :agent::bytea AND floor > :incarnation::bytea
