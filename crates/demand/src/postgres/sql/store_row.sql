SELECT id, epoch, system_id, timeline, grace_until FROM store WHERE singleton = 1 FOR UPDATE
