-- Deletes the sagas that ended, and the records of messages that were handled, more than 30 days ago. A message or step
-- that arrives again after that counts as new. An unfinished saga keeps its rows and its barriers. If the journal of a
-- saga is in another database, its barriers are deleted after 30 days, even if the saga is unfinished.
DELETE FROM saga.sagas
WHERE state IN ('completed', 'compensated', 'abandoned') AND updated_at < now() - interval '30 days';
DELETE FROM saga.entries WHERE NOT EXISTS (SELECT FROM saga.sagas WHERE id = saga_id);
DELETE FROM saga.outcomes WHERE NOT EXISTS (SELECT FROM saga.sagas WHERE id = saga_id);
DELETE FROM saga.barriers
WHERE at < now() - interval '30 days' AND NOT EXISTS (SELECT FROM saga.sagas WHERE id = saga_id);
DELETE FROM saga.inbox WHERE at < now() - interval '30 days';
