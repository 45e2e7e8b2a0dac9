"""Derived data beside the days: it can be rebuilt, and is never believed against them. Knows no API and no Dagster."""
