"""Database `queue`: one table of deferred jobs, on SQLite or PostgreSQL."""
