-- The outbox and the inbox of messages. Every statement may run again.
CREATE TABLE IF NOT EXISTS outbox (
    sequence INTEGER PRIMARY KEY,
    id       TEXT NOT NULL,
    type     TEXT NOT NULL,
    payload  TEXT NOT NULL,
    trace    TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS inbox (
    consumer   TEXT NOT NULL,
    message_id TEXT NOT NULL,
    PRIMARY KEY (consumer, message_id)
) STRICT, WITHOUT ROWID;
