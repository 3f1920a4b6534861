"""What a notebook shows: figures, tables, live widgets, and the report of a run."""
