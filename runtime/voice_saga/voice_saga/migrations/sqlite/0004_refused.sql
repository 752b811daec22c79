-- A refused message waits longer after each refusal before it is sent again, and blocks no other message. Every
-- statement may run again.
CREATE TABLE IF NOT EXISTS refused (
    sequence INTEGER PRIMARY KEY,
    refusals INTEGER NOT NULL,
    due      REAL NOT NULL
) STRICT;
