"""Years of building sensor history from the ACE IoT API, as one verified Parquet object per site and day.

The road of one sample runs left to right and visits no room twice (`docs/architecture.md`):
`core` plans windows, `ace` fetches and decodes them, `storage` encodes, puts and verifies the day,
`orchestration` records it in Dagster; `control` is what an operator asks for, `simulator` an ACE API of one's own.
"""

from importlib.metadata import version

__version__ = version("backfill-pipeline")
