"""Coverage of the store: one row for each site and day, from the index and the objects' footers, and its pictures."""
