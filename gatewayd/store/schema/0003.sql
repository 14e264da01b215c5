-- What a gate saw that paused the campaign here, to be told again when the cloud asks.
ALTER TABLE campaign ADD COLUMN evidence TEXT NOT NULL DEFAULT '';   -- JSON, as in the report
