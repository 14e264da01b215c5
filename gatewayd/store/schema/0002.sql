-- Retries that a revision asks for, and why a node came back with its old version.
ALTER TABLE node_update ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;        -- that began the attempts counted now
ALTER TABLE node_update ADD COLUMN first_attempt INTEGER NOT NULL DEFAULT 1;   -- of those that count against the limit
ALTER TABLE node_update ADD COLUMN installing_at REAL NOT NULL DEFAULT 0;      -- radio's clock
ALTER TABLE node_update ADD COLUMN reset_cause TEXT NOT NULL DEFAULT '';       -- of a rollback, where the node tells
ALTER TABLE node ADD COLUMN reset_cause_at REAL;
