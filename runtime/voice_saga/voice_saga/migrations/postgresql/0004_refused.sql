-- A message that the transport refused is due again after a growing wait, and blocks no other message. Every statement
-- may run again.
ALTER TABLE saga.outbox ADD COLUMN IF NOT EXISTS refusals integer NOT NULL DEFAULT 0;
ALTER TABLE saga.outbox ADD COLUMN IF NOT EXISTS due timestamptz NOT NULL DEFAULT '-infinity';
