-- What only a node's kind of radio knows of it, for people.
ALTER TABLE node ADD COLUMN details TEXT NOT NULL DEFAULT '{}';   -- JSON

-- What a transfer to the nodes of a tier was planned to take, before its first byte.
CREATE TABLE transfer_plan (
    campaign TEXT NOT NULL REFERENCES campaign (id),
    tier     INTEGER NOT NULL,
    radio    TEXT NOT NULL,
    transfer TEXT NOT NULL,
    nodes    TEXT NOT NULL,   -- JSON: the ids that it was made for
    body     TEXT NOT NULL,   -- JSON: the numbers
    made_at  REAL NOT NULL,
    PRIMARY KEY (campaign, tier, radio, transfer)
) STRICT;
