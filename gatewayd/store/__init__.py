"""The daemon's durable state: one SQLite file, one writer."""
