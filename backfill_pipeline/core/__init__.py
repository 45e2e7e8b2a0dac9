"""What is true of days, windows, pages and rows: pure, without network, clock, environment or Dagster."""
