-- The store as it begins: who subscribes, what was given up, and how far changes have come.
--
-- Text of people and programs is TEXT, bytes are BLOB, times are RFC 3339 text or whole milliseconds
-- since 1970. STRICT, so that a value of the wrong kind is refused instead of kept.

-- Facts written once: `store_id`, `key_check`.
CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- `changes` rises by one with every change to a subscription, in the transaction of that change;
-- `cycles` with every replay, so that no two replays are ever the same life of a delivery.
CREATE TABLE counters (
    name  TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;

INSERT INTO counters (name, value) VALUES ('changes', 0), ('cycles', 0);

-- The value of `changes` at a tenant's last change. A row stays when the last subscription goes,
-- so that a version never falls.
CREATE TABLE tenants (
    tenant  TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL
) STRICT;

CREATE INDEX tenants_by_version ON tenants (version);

-- `document` is what may be shown, every secret masked; `sealed` is the whole document, encrypted.
CREATE TABLE subscriptions (
    id          TEXT NOT NULL PRIMARY KEY,
    tenant      TEXT NOT NULL,
    name        TEXT,
    enabled     INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    document    TEXT NOT NULL,
    sealed      BLOB NOT NULL,
    version     INTEGER NOT NULL,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL
) STRICT;

CREATE INDEX subscriptions_by_tenant ON subscriptions (tenant, id);

-- `letter_key` is a digest of what makes two letters the same one, so that a letter drained twice is
-- kept once (a digest, because a unique index would let absent parts differ from each other).
-- `headers` and `answer` are sealed: they are foreign text that may echo a secret back to us.
-- AUTOINCREMENT, because an id that a person has noted must never come to mean another letter.
CREATE TABLE dead_letters (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    letter_key    BLOB NOT NULL UNIQUE CHECK (length(letter_key) = 32),
    kind          TEXT NOT NULL CHECK (kind IN ('delivery', 'event')),
    reason        TEXT NOT NULL CHECK (length(reason) BETWEEN 1 AND 512),
    tenant        TEXT,
    event_id      TEXT,
    event_type    TEXT,
    subscription  TEXT,
    document_id   TEXT,
    batch_id      TEXT,
    cycle         INTEGER NOT NULL,
    attempts      INTEGER NOT NULL,
    body          BLOB NOT NULL,
    body_sha256   BLOB NOT NULL,
    headers       BLOB NOT NULL,
    history       TEXT NOT NULL,
    answer        BLOB NOT NULL,
    first_seen_ms INTEGER NOT NULL,
    dead_at_ms    INTEGER NOT NULL,
    state         TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'discarded')),
    state_at_ms   INTEGER,
    note          TEXT
) STRICT;

CREATE INDEX dead_letters_by_state ON dead_letters (state, id);
CREATE INDEX dead_letters_by_tenant ON dead_letters (tenant, id);
CREATE INDEX dead_letters_by_subscription ON dead_letters (subscription, id);
CREATE INDEX dead_letters_by_time ON dead_letters (dead_at_ms);
CREATE INDEX dead_letters_by_event ON dead_letters (event_id);
CREATE INDEX dead_letters_by_document ON dead_letters (document_id) WHERE document_id IS NOT NULL;
