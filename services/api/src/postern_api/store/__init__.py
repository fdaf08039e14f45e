"""Database `control`: tables, connections, migrations."""
