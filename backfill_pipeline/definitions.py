"""What Dagster loads: `defs`, built from the settings."""

from backfill_pipeline.orchestration.build import build_defs
from backfill_pipeline.settings import Settings

defs = build_defs(Settings.load())
