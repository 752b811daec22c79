-- A refused message is sent again after 1 s. Each further refusal doubles this wait, up to 64 s. The message blocks no
-- other message. Every statement may run again.
ALTER TABLE saga.outbox ADD COLUMN IF NOT EXISTS refusals integer NOT NULL DEFAULT 0;
ALTER TABLE saga.outbox ADD COLUMN IF NOT EXISTS due timestamptz NOT NULL DEFAULT '-infinity';
