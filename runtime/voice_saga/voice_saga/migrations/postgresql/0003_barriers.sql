-- The barriers: one row for each action or compensation that has run or that must not run any more. The table belongs in
-- the database to which the steps write.
CREATE SCHEMA IF NOT EXISTS saga;

CREATE TABLE IF NOT EXISTS saga.barriers (
    saga_id text NOT NULL,
    step    text NOT NULL,
    branch  text NOT NULL,
    origin  text NOT NULL,
    result  json,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (saga_id, step, branch)
);
