-- Which subscriptions get nothing but failures, what the platform is to hear, and whose replays are whose.

-- Whoever changes rows of `streaks` locks this row first.
INSERT INTO counters (name, value) VALUES ('streaks', 0);

-- An unbroken row of failed attempts; gone with the first success. `class` and `status` are of the last one.
CREATE TABLE streaks (
    subscription TEXT NOT NULL PRIMARY KEY,
    since_ms     INTEGER NOT NULL,
    last_ms      INTEGER NOT NULL,
    failures     INTEGER NOT NULL,
    class        TEXT NOT NULL,
    status       INTEGER,
    told         INTEGER NOT NULL CHECK (told IN (0, 1))
) STRICT;

-- Written with what they tell of, gone when RabbitMQ confirmed them. `lease_until_ms` keeps two processes from
-- publishing the same one at once.
CREATE TABLE notices (
    id             TEXT NOT NULL PRIMARY KEY,
    kind           TEXT NOT NULL,
    at_ms          INTEGER NOT NULL,
    body           TEXT NOT NULL,
    lease_until_ms INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX notices_by_time ON notices (at_ms, id);

-- Whose key began it; none: an operator's.
ALTER TABLE replay_jobs ADD COLUMN tenant TEXT;
