-- A refused message waits longer after each refusal before it is sent again, and blocks no other message. Every
-- statement may run again.
ALTER TABLE saga.outbox ADD COLUMN IF NOT EXISTS refusals integer NOT NULL DEFAULT 0;
ALTER TABLE saga.outbox ADD COLUMN IF NOT EXISTS due timestamptz NOT NULL DEFAULT '-infinity';
