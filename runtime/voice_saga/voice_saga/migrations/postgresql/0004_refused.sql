-- A message that the transport refused is due again, later each time, and holds up no other. May run again.
ALTER TABLE saga.outbox ADD COLUMN IF NOT EXISTS refusals integer NOT NULL DEFAULT 0;
ALTER TABLE saga.outbox ADD COLUMN IF NOT EXISTS due timestamptz NOT NULL DEFAULT '-infinity';
