"""Rules of the error tree: facts are fields, and the sentence is made from them."""

from datetime import date

import pytest

from backfill_pipeline.errors import BackfillError, PageFailedError, StoreRefusedError, UsageError


def test_an_error_shows_its_message_and_then_its_hint_as_a_sentence():
    """The text of an error is the message, followed by the hint as a sentence of its own."""
    error = StoreRefusedError("cannot store x: no space", hint="free some space", site="a", day=date(2025, 3, 1))
    assert str(error) == "cannot store x: no space. Free some space"
    assert (error.message, error.hint, error.site, error.day) == (
        "cannot store x: no space",
        "free some space",
        "a",
        date(2025, 3, 1),
    )


@pytest.mark.parametrize("kind", [BackfillError, UsageError, PageFailedError])
def test_an_error_without_a_hint_is_its_message(kind):
    """An error that has no hint shows its message alone."""
    assert str(kind("no such day")) == "no such day"
