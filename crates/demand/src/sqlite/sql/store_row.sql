SELECT id, epoch FROM store WHERE singleton = 1
