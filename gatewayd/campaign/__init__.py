"""Campaigns: who is updated, when, and what has become of every node."""
