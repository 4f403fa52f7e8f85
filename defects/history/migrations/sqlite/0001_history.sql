-- least server: 1

-- The same tables as PostgreSQL's, which says what they hold. Types that SQLite does not know name how a value is
-- packed: UUID 16 bytes, INSTANT microseconds since 1970, REALS and DOUBLES little-endian floats of 32 and 64 bits.
CREATE TABLE models (no INTEGER PRIMARY KEY, version TEXT NOT NULL, digest TEXT NOT NULL UNIQUE, schema TEXT NOT NULL);
CREATE TABLE revisions (no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE sources (no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
INSERT INTO sources (no, name) VALUES (0, '');

CREATE TABLE predictions (
    id UUID NOT NULL PRIMARY KEY,
    kind INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    row INTEGER NOT NULL,
    model INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    source INTEGER NOT NULL,
    protocol INTEGER NOT NULL,
    features REALS,
    wide_features DOUBLES,
    probabilities REALS NOT NULL,
    class INTEGER NOT NULL,
    latency_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX predictions_request ON predictions (request_id);

CREATE TABLE outcomes (
    prediction_id UUID NOT NULL,
    origin TEXT NOT NULL,
    class TEXT NOT NULL,
    occurred_at INSTANT NOT NULL,
    received_at INSTANT NOT NULL,
    replaced_at INSTANT
);
CREATE UNIQUE INDEX outcomes_current ON outcomes (prediction_id, origin) WHERE replaced_at IS NULL;
CREATE INDEX outcomes_replaced ON outcomes (prediction_id) WHERE replaced_at IS NOT NULL;

CREATE TABLE early_outcomes (
    no INTEGER PRIMARY KEY,
    prediction_id UUID,
    request_id TEXT,
    row INTEGER,
    origin TEXT NOT NULL,
    class TEXT NOT NULL,
    occurred_at INSTANT NOT NULL,
    received_at INSTANT NOT NULL,
    replaces BOOLEAN NOT NULL
);
CREATE INDEX early_outcomes_received ON early_outcomes (received_at);
CREATE INDEX early_outcomes_prediction ON early_outcomes (prediction_id) WHERE prediction_id IS NOT NULL;
CREATE INDEX early_outcomes_request ON early_outcomes (request_id) WHERE request_id IS NOT NULL;

CREATE TABLE idempotency (
    key TEXT PRIMARY KEY,
    body_digest BLOB NOT NULL,
    answer BLOB NOT NULL,
    expires_at INSTANT NOT NULL
);
CREATE INDEX idempotency_expires ON idempotency (expires_at);
