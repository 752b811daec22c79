-- What a step's own transaction has let through; belongs in the database that the step writes to.
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
