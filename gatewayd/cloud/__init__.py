"""The way to the cloud: documents, MQTT link, durable outbox."""
