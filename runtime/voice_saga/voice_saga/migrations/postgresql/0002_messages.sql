-- The outbox and the inbox of messages. Every statement may run again.
CREATE TABLE IF NOT EXISTS saga.outbox (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id       text NOT NULL,
    type     text NOT NULL,
    payload  json NOT NULL,
    trace    text NOT NULL DEFAULT '',
    at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Messages that a consumer has handled.
CREATE TABLE IF NOT EXISTS saga.inbox (
    consumer   text NOT NULL,
    message_id text NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, message_id)
);
