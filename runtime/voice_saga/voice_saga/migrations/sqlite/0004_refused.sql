-- A refused message is sent again after 1 s. Each further refusal doubles this wait, up to 64 s. The message blocks no
-- other message. Every statement may run again.
CREATE TABLE IF NOT EXISTS refused (
    sequence INTEGER PRIMARY KEY,
    refusals INTEGER NOT NULL,
    due      REAL NOT NULL
) STRICT;
