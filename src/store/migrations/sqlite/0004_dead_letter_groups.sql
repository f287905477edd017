-- Dead letters by what they have in common, and replays as jobs.
--
-- `host`, `class`, `status` and `replays` are written with the letter; letters of older versions have none.

ALTER TABLE dead_letters ADD COLUMN host TEXT;
ALTER TABLE dead_letters ADD COLUMN class TEXT;
ALTER TABLE dead_letters ADD COLUMN status INTEGER;
ALTER TABLE dead_letters ADD COLUMN replays INTEGER NOT NULL DEFAULT 0;

-- Lists and groups are made of this index alone, in place of the one over state and id: a letter itself is
-- read only to be shown, since its body stands before these columns.
DROP INDEX dead_letters_by_state;
CREATE INDEX dead_letters_listed ON dead_letters
    (state, id, kind, host, class, status, tenant, event_type, dead_at_ms, replays);
CREATE INDEX dead_letters_by_class ON dead_letters (class, id);
CREATE INDEX dead_letters_by_host ON dead_letters (host, id);
CREATE INDEX dead_letters_by_type ON dead_letters (event_type, id);
CREATE INDEX dead_letters_by_batch ON dead_letters (batch_id, id) WHERE batch_id IS NOT NULL;

-- A replay is a job. `asked` is what was asked for, so that the same command continues its job; the one process
-- that holds the lease works on it; `detached` ones are `serve`'s.
CREATE TABLE replay_jobs (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    asked          TEXT NOT NULL,
    subscription   TEXT,
    rate           INTEGER NOT NULL,
    canary         INTEGER NOT NULL,
    detached       INTEGER NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('running', 'paused', 'stopped', 'cancelled', 'done')),
    told           TEXT,
    created_at_ms  INTEGER NOT NULL,
    changed_at_ms  INTEGER NOT NULL,
    lease          TEXT,
    lease_until_ms INTEGER NOT NULL
) STRICT;

-- The cycle is written before the letter is published: published twice after a crash it is one life of the
-- delivery, and one letter if it dies again.
CREATE TABLE replay_items (
    job        INTEGER NOT NULL,
    letter     INTEGER NOT NULL,
    state      TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'skipped')),
    cycle      INTEGER,
    sent_at_ms INTEGER,
    PRIMARY KEY (job, letter)
) STRICT;

-- No letter waits in two jobs.
CREATE UNIQUE INDEX replay_items_waiting ON replay_items (letter) WHERE state = 'waiting';
CREATE INDEX replay_items_by_state ON replay_items (job, state, letter);
