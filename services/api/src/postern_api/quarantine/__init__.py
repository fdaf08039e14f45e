"""Held mail: list, read, release, forward, delete. Stream QUARANTINE is the truth; the database holds an index of it."""
