-- The last event stays, so that numbers never begin again.
DELETE FROM events
WHERE sequence < (SELECT min(sequence) + 1000 FROM events)
    AND at < :oldest AND sequence < (SELECT max(sequence) FROM events)
