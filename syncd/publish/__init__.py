"""The mirror goes out to PostgreSQL or MySQL: the same views, for shops with many hosts."""
