"""The adapter of the ACE API: its requests, its budget, its answers as columns, and a day fetched whole."""
