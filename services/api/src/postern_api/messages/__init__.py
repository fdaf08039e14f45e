"""The trace of every message: its steps, the end of each recipient, and where it is now."""
