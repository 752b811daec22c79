-- A message that the transport refused is due again, later each time, and holds up no other. May run again.
CREATE TABLE IF NOT EXISTS refused (
    sequence INTEGER PRIMARY KEY,
    refusals INTEGER NOT NULL,
    due      REAL NOT NULL
) STRICT;
