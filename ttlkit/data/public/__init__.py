"""Public data sets: what the catalogue says of them, and how they get into a collection."""
