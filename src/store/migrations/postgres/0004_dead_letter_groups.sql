-- Dead letters by what they have in common, and replays as jobs; `sqlite/0004_dead_letter_groups.sql` says what
-- the columns are for.

ALTER TABLE dead_letters ADD COLUMN host TEXT COLLATE "C";
ALTER TABLE dead_letters ADD COLUMN class TEXT COLLATE "C";
ALTER TABLE dead_letters ADD COLUMN status BIGINT;
ALTER TABLE dead_letters ADD COLUMN replays BIGINT NOT NULL DEFAULT 0;

DROP INDEX dead_letters_by_state;
CREATE INDEX dead_letters_listed ON dead_letters
    (state, id, kind, host, class, status, tenant, event_type, dead_at_ms, replays);
CREATE INDEX dead_letters_by_class ON dead_letters (class, id);
CREATE INDEX dead_letters_by_host ON dead_letters (host, id);
CREATE INDEX dead_letters_by_type ON dead_letters (event_type, id);
CREATE INDEX dead_letters_by_batch ON dead_letters (batch_id, id) WHERE batch_id IS NOT NULL;

CREATE TABLE replay_jobs (
    id             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asked          TEXT NOT NULL,
    subscription   TEXT,
    rate           BIGINT NOT NULL,
    canary         BIGINT NOT NULL,
    detached       BIGINT NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('running', 'paused', 'stopped', 'cancelled', 'done')),
    told           TEXT,
    created_at_ms  BIGINT NOT NULL,
    changed_at_ms  BIGINT NOT NULL,
    lease          TEXT,
    lease_until_ms BIGINT NOT NULL
);

CREATE TABLE replay_items (
    job        BIGINT NOT NULL,
    letter     BIGINT NOT NULL,
    state      TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'skipped')),
    cycle      BIGINT,
    sent_at_ms BIGINT,
    PRIMARY KEY (job, letter)
);

CREATE UNIQUE INDEX replay_items_waiting ON replay_items (letter) WHERE state = 'waiting';
CREATE INDEX replay_items_by_state ON replay_items (job, state, letter);
