-- Times are Unix seconds (REAL). Texts that name a state are the StrEnums of the code.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- What is known of a node, whoever told it.
CREATE TABLE node (
    id               TEXT PRIMARY KEY,
    radio            TEXT NOT NULL,
    name             TEXT,
    manufacturer     TEXT,
    model            TEXT,
    hardware         TEXT,
    hardware_version INTEGER,
    version          INTEGER,
    version_at       REAL,
    power            TEXT,
    battery_percent  REAL,
    battery_at       REAL,
    sleepy           INTEGER,
    lqi              INTEGER,
    rssi_dbm         REAL,
    snr_db           REAL,
    reset_cause      TEXT,
    joined           INTEGER,
    tags             TEXT NOT NULL DEFAULT '{}',
    first_seen       REAL NOT NULL,
    last_seen        REAL NOT NULL,
    security_version INTEGER NOT NULL DEFAULT 0   -- floor: highest that we delivered and the node confirmed
) STRICT;

-- Campaigns as they were signed, kept whole so that they can be verified again.
CREATE TABLE campaign (
    id          TEXT PRIMARY KEY,
    topic       TEXT NOT NULL,
    audience    TEXT NOT NULL,
    revision    INTEGER NOT NULL,
    digest      TEXT NOT NULL,       -- SHA-256 of the signed payload: the same revision with other bytes is refused
    envelope    BLOB NOT NULL,
    release     TEXT NOT NULL,
    state       TEXT NOT NULL,
    code        TEXT NOT NULL DEFAULT '',
    detail      TEXT NOT NULL DEFAULT '',
    hold        INTEGER NOT NULL DEFAULT 0,   -- the local operator's
    open_tiers  INTEGER NOT NULL DEFAULT 1,
    gate        TEXT NOT NULL DEFAULT '',
    adopted_at  REAL NOT NULL,
    updated_at  REAL NOT NULL
) STRICT;

-- Release documents that were verified, kept whole for the offline restart.
CREATE TABLE release (
    path        TEXT PRIMARY KEY,
    body        BLOB NOT NULL,
    verified_at REAL NOT NULL
) STRICT;

CREATE TABLE node_update (
    campaign    TEXT NOT NULL REFERENCES campaign (id),
    node        TEXT NOT NULL,
    release     TEXT NOT NULL,
    transfer    TEXT NOT NULL,
    tier        INTEGER NOT NULL,
    target_version INTEGER NOT NULL,
    state       TEXT NOT NULL,
    resume      TEXT NOT NULL,       -- with deferred: the state it interrupts
    code        TEXT NOT NULL DEFAULT '',
    detail      TEXT NOT NULL DEFAULT '',
    attempt     INTEGER NOT NULL DEFAULT 1,
    generation  INTEGER NOT NULL DEFAULT 0,
    want        TEXT NOT NULL DEFAULT '',
    version_before INTEGER,
    version     INTEGER,
    confirmed   INTEGER NOT NULL DEFAULT 0,
    size        INTEGER NOT NULL DEFAULT 0,
    since       REAL NOT NULL,       -- the state began, wall clock
    radio_since REAL NOT NULL DEFAULT 0,   -- the same on the radio's clock
    updated_at  REAL NOT NULL,
    PRIMARY KEY (campaign, node)
) STRICT;
CREATE INDEX node_update_by_node ON node_update (node, state);
CREATE INDEX node_update_by_transfer ON node_update (transfer);

-- What the radios must find again after a crash; opaque here.
CREATE TABLE radio_record (
    radio   TEXT NOT NULL,
    scope   TEXT NOT NULL,
    key     TEXT NOT NULL,
    version INTEGER NOT NULL,
    value   BLOB NOT NULL,
    secret  INTEGER NOT NULL,
    PRIMARY KEY (radio, scope, key)
) STRICT;

-- Reports that the cloud has not yet acknowledged.
CREATE TABLE outbox (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    kind   TEXT NOT NULL,
    body   TEXT NOT NULL,
    bytes  INTEGER NOT NULL,
    at     REAL NOT NULL
) STRICT;
CREATE INDEX outbox_by_kind ON outbox (kind, seq);
