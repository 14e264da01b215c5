-- What a gate saw that paused the campaign here, to be told again when the cloud asks.
ALTER TABLE campaign ADD COLUMN evidence TEXT NOT NULL DEFAULT '';   -- JSON, as in the report
-- When an ordered installation may begin at the earliest, told to the radio ahead of its window.
ALTER TABLE node_update ADD COLUMN install_at REAL NOT NULL DEFAULT 0;   -- wall clock; 0: at once
