"""Firmware updates for nodes that cannot reach the internet: the daemon."""
