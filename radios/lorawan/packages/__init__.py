"""The application packages of LoRaWAN FUOTA (TS003 to TS007), one module each: bytes <-> commands, both directions.

Every module has PACKAGE_ID, DEFAULT_PORT, `encode`, `decode_uplink` and `decode_downlink`. What a command means, when it
is sent and which version a node speaks is the session's business.
"""
