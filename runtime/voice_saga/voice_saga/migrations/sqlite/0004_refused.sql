-- A message that the transport refused is due again after a growing wait, and blocks no other message. Every statement
-- may run again.
CREATE TABLE IF NOT EXISTS refused (
    sequence INTEGER PRIMARY KEY,
    refusals INTEGER NOT NULL,
    due      REAL NOT NULL
) STRICT;
