"""What arrived: a table of site-days from the objects' own footers, and what it looks like."""
