-- Batches, their documents, and what is to be published of them.
--
-- `due_ms` says when somebody has to look at it: of an open batch when it may close, of a closed one 0 as soon as
-- every document is finished; NULL: not before something is told of it. Times are Unix milliseconds.
CREATE TABLE batches (
    number           INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant           TEXT NOT NULL,
    id               TEXT NOT NULL,
    state            TEXT NOT NULL CHECK (state IN ('open', 'closed', 'completed')),
    opened_ms        INTEGER NOT NULL,
    last_document_ms INTEGER,
    idle_ms          INTEGER NOT NULL,
    close_asked      INTEGER NOT NULL,
    documents        INTEGER NOT NULL,
    finished         INTEGER NOT NULL,
    late             INTEGER NOT NULL,
    scope            TEXT NOT NULL,
    closed_ms        INTEGER,
    completed_ms     INTEGER,
    due_ms           INTEGER,
    changed_ms       INTEGER NOT NULL,
    UNIQUE (tenant, id)
) STRICT;

CREATE INDEX batches_due ON batches (state, due_ms) WHERE due_ms IS NOT NULL;
CREATE INDEX batches_by_tenant ON batches (tenant, number);
CREATE INDEX batches_by_id ON batches (id, number);
CREATE INDEX batches_by_state ON batches (state, number);
CREATE INDEX batches_by_change ON batches (changed_ms);

CREATE TABLE batch_documents (
    batch      INTEGER NOT NULL,
    document   TEXT NOT NULL,
    joined_ms  INTEGER NOT NULL,
    outcome    TEXT,
    outcome_ms INTEGER,
    late       INTEGER NOT NULL,
    PRIMARY KEY (batch, document)
) STRICT, WITHOUT ROWID;

-- Written in the transaction that completes a batch or finds a document late; published, confirmed, then marked.
CREATE TABLE batch_outbox (
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    batch    INTEGER NOT NULL,
    event_id TEXT NOT NULL UNIQUE,
    kind     TEXT NOT NULL CHECK (kind IN ('batch.completed', 'batch.late_document')),
    body     BLOB NOT NULL,
    sent_ms  INTEGER
) STRICT;

CREATE INDEX batch_outbox_waiting ON batch_outbox (number) WHERE sent_ms IS NULL;
CREATE INDEX batch_outbox_by_batch ON batch_outbox (batch);

-- Who sweeps, and the round in which workers are asked whether they are through: `phase` 0 none is under way,
-- 1 they are called, 2 they watch.
CREATE TABLE batch_sweep (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    owner    TEXT,
    until_ms INTEGER NOT NULL,
    round    INTEGER NOT NULL,
    phase    INTEGER NOT NULL
) STRICT;

INSERT INTO batch_sweep (one, owner, until_ms, round, phase) VALUES (1, NULL, 0, 0, 0);

-- Every process that takes events, from before its first until after its last: the last round it has heard of, the
-- last it is through with, and the last it spoiled. `beat` rises while a round goes on.
CREATE TABLE batch_workers (
    process   TEXT NOT NULL PRIMARY KEY,
    heard     INTEGER NOT NULL,
    through   INTEGER NOT NULL,
    spoiled   INTEGER NOT NULL,
    consumers INTEGER NOT NULL,
    beat      INTEGER NOT NULL
) STRICT;

-- Until when something may come back that a process put off before what it means was written down. It outlives the
-- process.
CREATE TABLE batch_holds (
    process  TEXT NOT NULL PRIMARY KEY,
    until_ms INTEGER NOT NULL
) STRICT;
