"""What was advised, what was decided, what happened: SQLite, or PostgreSQL."""
