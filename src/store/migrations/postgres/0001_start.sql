-- The store as it begins, for PostgreSQL; `sqlite/0001_start.sql` says what the tables are for.
--
-- Numbers are BIGINT throughout and bytes are BYTEA. What is compared or sorted is COLLATE "C", so that
-- ids come in the same order whatever language the database was made for.

CREATE TABLE meta (
    key   TEXT COLLATE "C" PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE counters (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value BIGINT NOT NULL
);

INSERT INTO counters (name, value) VALUES ('changes', 0), ('cycles', 0);

CREATE TABLE tenants (
    tenant  TEXT COLLATE "C" PRIMARY KEY,
    version BIGINT NOT NULL
);

CREATE INDEX tenants_by_version ON tenants (version);

CREATE TABLE subscriptions (
    id          TEXT COLLATE "C" PRIMARY KEY,
    tenant      TEXT COLLATE "C" NOT NULL,
    name        TEXT,
    enabled     BOOLEAN NOT NULL,
    document    TEXT NOT NULL,
    sealed      BYTEA NOT NULL,
    version     BIGINT NOT NULL,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL
);

CREATE INDEX subscriptions_by_tenant ON subscriptions (tenant, id);

-- An identity never gives a number twice, but a number drawn for a letter that was there already is lost:
-- ids rise with gaps.
CREATE TABLE dead_letters (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    letter_key    BYTEA NOT NULL UNIQUE CHECK (length(letter_key) = 32),
    kind          TEXT NOT NULL CHECK (kind IN ('delivery', 'event')),
    reason        TEXT COLLATE "C" NOT NULL CHECK (length(reason) BETWEEN 1 AND 512),
    tenant        TEXT COLLATE "C",
    event_id      TEXT COLLATE "C",
    event_type    TEXT COLLATE "C",
    subscription  TEXT COLLATE "C",
    document_id   TEXT COLLATE "C",
    batch_id      TEXT COLLATE "C",
    cycle         BIGINT NOT NULL,
    attempts      BIGINT NOT NULL,
    body          BYTEA NOT NULL,
    body_sha256   BYTEA NOT NULL,
    headers       BYTEA NOT NULL,
    history       TEXT NOT NULL,
    answer        BYTEA NOT NULL,
    first_seen_ms BIGINT NOT NULL,
    dead_at_ms    BIGINT NOT NULL,
    state         TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'discarded')),
    state_at_ms   BIGINT,
    note          TEXT
);

CREATE INDEX dead_letters_by_state ON dead_letters (state, id);
CREATE INDEX dead_letters_by_tenant ON dead_letters (tenant, id);
CREATE INDEX dead_letters_by_subscription ON dead_letters (subscription, id);
CREATE INDEX dead_letters_by_time ON dead_letters (dead_at_ms);
CREATE INDEX dead_letters_by_event ON dead_letters (event_id);
CREATE INDEX dead_letters_by_document ON dead_letters (document_id) WHERE document_id IS NOT NULL;
