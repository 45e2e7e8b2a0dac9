"""The adapter of the store: a day as Parquet, put whole, read back and verified, on local disk, S3 or R2."""
