-- Forgets what ended or was handled 30 days ago; nothing is sent again that late. What is not over is kept, and so are
-- its barriers; those of a saga whose journal is in another database go by their age alone.
DELETE FROM saga.sagas
WHERE state IN ('completed', 'compensated', 'abandoned') AND updated_at < now() - interval '30 days';
DELETE FROM saga.entries WHERE NOT EXISTS (SELECT FROM saga.sagas WHERE id = saga_id);
DELETE FROM saga.outcomes WHERE NOT EXISTS (SELECT FROM saga.sagas WHERE id = saga_id);
DELETE FROM saga.barriers
WHERE at < now() - interval '30 days' AND NOT EXISTS (SELECT FROM saga.sagas WHERE id = saga_id);
DELETE FROM saga.inbox WHERE at < now() - interval '30 days';
