-- Who may use the HTTP API, what was changed by whom, and the answers that a repeated creation gets again.

-- Raised with every key that is made or revoked, so that processes know when to read the keys again.
INSERT INTO counters (name, value) VALUES ('keys', 0);

-- `hash` is the SHA-256 of the whole key, which itself is kept nowhere. No `tenant`: an operator's key.
-- A revoked key stays, so that its lines of the audit keep their meaning.
CREATE TABLE api_keys (
    id            TEXT NOT NULL PRIMARY KEY,
    hash          BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    name          TEXT,
    tenant        TEXT,
    scopes        TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER,
    revoked_at_ms INTEGER,
    used_at_ms    INTEGER
) STRICT;

CREATE INDEX api_keys_by_tenant ON api_keys (tenant, id);

-- `detail` is JSON without secrets: names of fields, counts, filters.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms   INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    tenant  TEXT,
    object  TEXT NOT NULL,
    detail  TEXT NOT NULL
) STRICT;

CREATE INDEX audit_by_tenant ON audit (tenant, id);
CREATE INDEX audit_by_time ON audit (at_ms);

-- `answer` is sealed: it may hold the secret that was made. `version` is the change counter of the creation.
CREATE TABLE kept_answers (
    actor   TEXT NOT NULL,
    key     TEXT NOT NULL,
    request BLOB NOT NULL CHECK (length(request) = 32),
    answer  BLOB NOT NULL,
    version INTEGER NOT NULL,
    at_ms   INTEGER NOT NULL,
    PRIMARY KEY (actor, key)
) STRICT;

CREATE INDEX kept_answers_by_time ON kept_answers (at_ms);
