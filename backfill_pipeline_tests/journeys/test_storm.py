"""The API at its worst, for an hour. The longer run: `python -m backfill_pipeline_tests.journeys.storm`."""

from backfill_pipeline_tests.journeys.storm import WEATHER, storm


def test_whatever_the_api_does_a_day_that_is_stored_is_the_truth(tmp_path):
    """Each fault alone, then all together: what fails is named, and comes when it is asked for again."""
    toll = storm(tmp_path, hours=0.9)
    assert (toll.wrong, toll.given_up) == ([], [])
    assert toll.struck == set(WEATHER)
    assert toll.requests > 2_500
