"""The bytes of firmware: fetched once, verified chunk by chunk, kept under their digest."""
