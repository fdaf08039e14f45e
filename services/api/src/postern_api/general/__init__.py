"""Settings of the relay as a whole: /settings."""
