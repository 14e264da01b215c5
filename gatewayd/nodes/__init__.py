"""The nodes behind this gateway."""
