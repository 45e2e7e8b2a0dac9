"""What Dagster loads: `defs`, built from the settings when Dagster asks for it, not when this module is imported."""

import dagster as dg

from backfill_pipeline.orchestration.build import build_defs
from backfill_pipeline.settings import Settings


@dg.definitions
def defs() -> dg.Definitions:
    """Build all definitions from the settings of this process."""
    return build_defs(Settings.load())
