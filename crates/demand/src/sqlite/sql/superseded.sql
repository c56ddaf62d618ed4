SELECT 1 FROM superseded WHERE agent = :agent AND floor > :incarnation
