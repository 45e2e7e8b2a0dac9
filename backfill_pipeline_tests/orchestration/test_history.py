"""What Dagster's events show of earlier days, whichever version recorded them."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from backfill_pipeline.orchestration.history import Launched, read_due
from backfill_pipeline.orchestration.partitions import asset_key

DAY = date(2025, 1, 8)


@pytest.mark.parametrize("neighbours", [0, 3])
@pytest.mark.parametrize(("rows", "state", "is_due"), [(0, "stored", True), (0, "empty", True), (432, "stored", False)])
def test_a_stored_day_without_rows_is_requested_again(neighbours, rows, state, is_due):
    """Whatever its state is called, and also if it was adopted and nothing else is known of it."""
    with dg.DagsterInstance.ephemeral() as instance:
        for number in range(neighbours + 1):
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    asset_key("north"),
                    partition=str(DAY + timedelta(days=number)),
                    metadata={"dagster/row_count": 432 if number else rows, "state": "stored" if number else state},
                )
            )
        due, _ = read_due(instance, "north", Launched(), datetime.now(UTC) + timedelta(hours=13))
        assert [(again.site, again.day) for _, again in due] == [("north", DAY)] * is_due
