-- Batches, their documents, and what is to be published of them; `sqlite/0005_batches.sql` says what for.
--
-- `due_ms` says when somebody has to look at it: of an open batch when it may close, of a closed one 0 as soon as
-- every document is finished; NULL: not before something is told of it. Times are Unix milliseconds.
CREATE TABLE batches (
    number           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant           TEXT COLLATE "C" NOT NULL,
    id               TEXT COLLATE "C" NOT NULL,
    state            TEXT COLLATE "C" NOT NULL CHECK (state IN ('open', 'closed', 'completed')),
    opened_ms        BIGINT NOT NULL,
    last_document_ms BIGINT,
    idle_ms          BIGINT NOT NULL,
    close_asked      BIGINT NOT NULL,
    documents        BIGINT NOT NULL,
    finished         BIGINT NOT NULL,
    late             BIGINT NOT NULL,
    scope            TEXT COLLATE "C" NOT NULL,
    closed_ms        BIGINT,
    completed_ms     BIGINT,
    due_ms           BIGINT,
    changed_ms       BIGINT NOT NULL,
    UNIQUE (tenant, id)
);

CREATE INDEX batches_due ON batches (state, due_ms) WHERE due_ms IS NOT NULL;
CREATE INDEX batches_by_tenant ON batches (tenant, number);
CREATE INDEX batches_by_id ON batches (id, number);
CREATE INDEX batches_by_state ON batches (state, number);
CREATE INDEX batches_by_change ON batches (changed_ms);

CREATE TABLE batch_documents (
    batch      BIGINT NOT NULL,
    document   TEXT COLLATE "C" NOT NULL,
    joined_ms  BIGINT NOT NULL,
    outcome    TEXT COLLATE "C",
    outcome_ms BIGINT,
    late       BIGINT NOT NULL,
    PRIMARY KEY (batch, document)
);

-- Written in the transaction that completes a batch or finds a document late; published, confirmed, then marked.
CREATE TABLE batch_outbox (
    number   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch    BIGINT NOT NULL,
    event_id TEXT COLLATE "C" NOT NULL UNIQUE,
    kind     TEXT COLLATE "C" NOT NULL CHECK (kind IN ('batch.completed', 'batch.late_document')),
    body     BYTEA NOT NULL,
    sent_ms  BIGINT
);

CREATE INDEX batch_outbox_waiting ON batch_outbox (number) WHERE sent_ms IS NULL;
CREATE INDEX batch_outbox_by_batch ON batch_outbox (batch);

-- Who sweeps, and the round in which workers are asked whether they are through: `phase` 0 none is under way,
-- 1 they are called, 2 they watch.
CREATE TABLE batch_sweep (
    one      BIGINT PRIMARY KEY CHECK (one = 1),
    owner    TEXT COLLATE "C",
    until_ms BIGINT NOT NULL,
    round    BIGINT NOT NULL,
    phase    BIGINT NOT NULL
);

INSERT INTO batch_sweep (one, owner, until_ms, round, phase) VALUES (1, NULL, 0, 0, 0);

-- Every process that takes events, from before its first until after its last: the last round it has heard of, the
-- last it is through with, and the last it spoiled. `beat` rises while a round goes on.
CREATE TABLE batch_workers (
    process   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    heard     BIGINT NOT NULL,
    through   BIGINT NOT NULL,
    spoiled   BIGINT NOT NULL,
    consumers BIGINT NOT NULL,
    beat      BIGINT NOT NULL
);

-- Until when something may come back that a process put off before what it means was written down. It outlives the
-- process.
CREATE TABLE batch_holds (
    process  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    until_ms BIGINT NOT NULL
);
