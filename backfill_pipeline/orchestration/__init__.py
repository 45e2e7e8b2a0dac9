"""The only rooms that know Dagster's assets: partitions, assets, resources, IO manager, jobs, sensors, checks."""
