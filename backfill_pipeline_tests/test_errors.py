"""Rules of the error tree: facts are fields, and the sentence is made from them."""

from datetime import date

import pytest

from backfill_pipeline import errors
from backfill_pipeline.errors import (
    BackfillError,
    KeyRefusedError,
    PageFailedError,
    StoreRefusedError,
    UsageError,
    concerning,
    what_failed,
)


def test_an_error_shows_its_message_and_then_its_hint_as_a_sentence():
    """The text of an error is the message, followed by the hint as a sentence of its own."""
    error = StoreRefusedError("cannot store x: no space", hint="free some space", site="a", day=date(2025, 3, 1))
    assert str(error) == "site 'a', 2025-03-01: cannot store x: no space. Free some space"
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


@pytest.mark.parametrize(
    ("message", "hint", "text"),
    [
        ("no connection; check ACE_API_URL and the network", "", "no connection; check ACE_API_URL and the network."),
        ("no connection.", "", "no connection."),
        ("no connection", "check the network", "no connection."),
    ],
)
def test_a_note_is_a_sentence_of_its_own(message, hint, text):
    """A note does not run into the message before it; the hint is not part of what failed."""
    error = PageFailedError(message, hint=hint)
    error.add_note("gave up after 10 tries")
    assert what_failed(error) == f"{text} Gave up after 10 tries"


def test_each_error_has_its_own_kind():
    """Code that keeps only text tells errors apart by `kind`, so no two types share one."""
    types = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, BackfillError)]
    kinds = [one.kind for one in types]
    assert len(set(kinds)) == len(kinds)
    assert all("kind" in vars(one) for one in types)


def test_the_drawn_tree_names_each_error_with_its_exit_code():
    """The tree at the top of `errors.py` is the tree of the code."""
    lines = errors.__doc__.splitlines()
    for one in vars(errors).values():
        if isinstance(one, type) and issubclass(one, BackfillError) and one is not BackfillError:
            (line,) = [line for line in lines if f"-- {one.__name__} " in line]
            assert one.exit_code == int(line.partition("exit code ")[2] or 1)


@pytest.mark.parametrize("kind", [UsageError, PageFailedError, StoreRefusedError])
def test_every_error_takes_a_site_and_a_day(kind):
    """A caller reads what failed from fields, whatever the type."""
    error = kind("failed", site="a", day=date(2025, 3, 1))
    assert (error.site, error.day) == ("a", date(2025, 3, 1))


def test_work_adds_its_site_and_day_to_an_error_that_has_none():
    """The code that knows the site and the day adds them; a more exact site or day of the error stays."""
    with pytest.raises(PageFailedError, match=r"^site 'a', 2025-03-01: cut$"), concerning("a", date(2025, 3, 1)):
        raise PageFailedError("cut")
    with pytest.raises(PageFailedError, match=r"^site 'a', 2025-03-01: cut$"), concerning("b", date(2025, 3, 1)):
        raise PageFailedError("cut", site="a")


def test_an_error_that_concerns_every_site_names_no_site():
    """A refused key is not an error of the site whose request found it."""
    with pytest.raises(KeyRefusedError, match=r"^refused$"), concerning("a", date(2025, 3, 1)):
        raise KeyRefusedError("refused")
