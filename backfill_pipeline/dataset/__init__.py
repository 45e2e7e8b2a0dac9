"""Data derived from the days. It can be rebuilt; where it differs from the days, the days are right.

This package imports neither the API client nor Dagster.
"""
