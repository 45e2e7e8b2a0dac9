"""A put that is killed leaves no half object. The longer run: `python -m backfill_pipeline_tests.storage.kills`."""

import random

from backfill_pipeline_tests.storage.bucket import bucket_server
from backfill_pipeline_tests.storage.kills import kill_puts

TIMES = 5


def test_killed_puts_leave_a_folder_with_whole_days_alone(tmp_path):
    """At random instants: the old day or the new one, whole; and after the next put no part of a file."""
    seen = kill_puts(str(tmp_path), TIMES, random.Random(2))  # noqa: S311 - instants, no secret
    assert seen["killed"] > 0
    assert seen["whole, replaced"] == TIMES
    assert (seen["half"], seen["left"]) == (0, 0)


def test_killed_puts_leave_a_bucket_with_whole_days_alone():
    """The same in a bucket: whole objects, and no upload that was begun."""
    with bucket_server() as proxy:
        seen = kill_puts(proxy.direct, TIMES, random.Random(2))  # noqa: S311 - instants, no secret
    assert seen["killed"] > 0
    assert seen["whole, replaced"] == TIMES
    assert (seen["half"], seen["left"]) == (0, 0)
