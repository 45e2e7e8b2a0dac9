"""This pipeline: one run of its Dagster job, over days of one site, with a run storage on disk.

python ours.py URL START END FOLDER
"""

import shutil
import sys
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg

from backfill_pipeline.orchestration.build import JOB, build_defs
from backfill_pipeline.settings import Settings

url, start, end, folder = sys.argv[1:]
home = Path(folder)
shutil.copy(Path(__file__).parent.parent.parent / "dagster.yaml", home)
first, last = (datetime.fromisoformat(text) for text in (start, end))
variables = {
    "ACE_API_URL": url, "ACE_API_KEY": "key", "ACE_SITES": "site", "ACE_REQUESTS_PER_MINUTE": "100000",
    "BACKFILL_STORE": str(home / "data"), "DAGSTER_HOME": str(home),
}  # fmt: skip
settings = Settings.load(variables, folder=home)
tags = {
    "dagster/asset_partition_range_start": f"{first.date()}",
    "dagster/asset_partition_range_end": f"{(last - timedelta(days=1)).date()}",
}
with dg.DagsterInstance.local_temp(folder) as instance:
    job = build_defs(settings).resolve_job_def(JOB)
    assert job.execute_in_process(instance=instance, tags=tags).success  # noqa: S101 - a benchmark of a failure is none
