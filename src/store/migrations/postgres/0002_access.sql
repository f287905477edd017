-- Who may use the HTTP API, what was changed by whom, and the answers that a repeated creation gets again;
-- `sqlite/0002_access.sql` says what the tables are for.

INSERT INTO counters (name, value) VALUES ('keys', 0);

CREATE TABLE api_keys (
    id            TEXT COLLATE "C" PRIMARY KEY,
    hash          BYTEA NOT NULL UNIQUE CHECK (length(hash) = 32),
    name          TEXT,
    tenant        TEXT COLLATE "C",
    scopes        TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT,
    revoked_at_ms BIGINT,
    used_at_ms    BIGINT
);

CREATE INDEX api_keys_by_tenant ON api_keys (tenant, id);

CREATE TABLE audit (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms   BIGINT NOT NULL,
    actor   TEXT COLLATE "C" NOT NULL,
    action  TEXT COLLATE "C" NOT NULL,
    tenant  TEXT COLLATE "C",
    object  TEXT COLLATE "C" NOT NULL,
    detail  TEXT NOT NULL
);

CREATE INDEX audit_by_tenant ON audit (tenant, id);
CREATE INDEX audit_by_time ON audit (at_ms);

CREATE TABLE kept_answers (
    actor   TEXT COLLATE "C" NOT NULL,
    key     TEXT COLLATE "C" NOT NULL,
    request BYTEA NOT NULL CHECK (length(request) = 32),
    answer  BYTEA NOT NULL,
    version BIGINT NOT NULL,
    at_ms   BIGINT NOT NULL,
    PRIMARY KEY (actor, key)
);

CREATE INDEX kept_answers_by_time ON kept_answers (at_ms);
