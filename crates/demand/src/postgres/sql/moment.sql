-- The store's clock, and what holds at it.
SELECT store_now(), epoch, grace_until FROM store WHERE singleton = 1
