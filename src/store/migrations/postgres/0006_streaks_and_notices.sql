-- Which subscriptions get nothing but failures, what the platform is to hear, and whose replays are whose;
-- `sqlite/0006_streaks_and_notices.sql` says what the tables are for.

INSERT INTO counters (name, value) VALUES ('streaks', 0);

CREATE TABLE streaks (
    subscription TEXT COLLATE "C" PRIMARY KEY,
    since_ms     BIGINT NOT NULL,
    last_ms      BIGINT NOT NULL,
    failures     BIGINT NOT NULL,
    class        TEXT NOT NULL,
    status       BIGINT,
    told         BIGINT NOT NULL CHECK (told IN (0, 1))
);

CREATE TABLE notices (
    id             TEXT COLLATE "C" PRIMARY KEY,
    kind           TEXT NOT NULL,
    at_ms          BIGINT NOT NULL,
    body           TEXT NOT NULL,
    lease_until_ms BIGINT NOT NULL DEFAULT 0
);

CREATE INDEX notices_by_time ON notices (at_ms, id);

ALTER TABLE replay_jobs ADD COLUMN tenant TEXT COLLATE "C";
