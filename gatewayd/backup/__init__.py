"""Backups of a whole gateway, and other hardware that goes on from one. See README.md."""
