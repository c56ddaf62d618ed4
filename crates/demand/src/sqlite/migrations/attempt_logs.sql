-- What a failed attempt printed, as the manifest of its log.
ALTER TABLE attempts ADD COLUMN log TEXT;
