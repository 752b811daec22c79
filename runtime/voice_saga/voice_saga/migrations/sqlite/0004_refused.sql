-- A refused message is sent again after 1 s, and after each further refusal twice as late, up to 64 s. It blocks no other
-- message. Every statement may run again.
CREATE TABLE IF NOT EXISTS refused (
    sequence INTEGER PRIMARY KEY,
    refusals INTEGER NOT NULL,
    due      REAL NOT NULL
) STRICT;
