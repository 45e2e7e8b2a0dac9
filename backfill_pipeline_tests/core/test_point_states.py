"""States: which texts of a point are its states, and which numbers stand for them."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.point_states import LONGEST_STATE, MOST_STATES, StateNumbers, day_states, states_of, united
from backfill_pipeline.core.rows import TextRows
from backfill_pipeline_tests.orchestration.fakes import day_rows

known = st.none() | st.sets(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), max_size=12).map(states_of)


@given(known, known, known)
def test_states_are_the_same_in_whatever_order_days_are_stored(one, two, three):
    """Runs side by side lose no state, and a point whose texts were too many stays so."""
    assert united(one, two) == united(two, one)
    assert united(united(one, two), three) == united(one, united(two, three))
    assert united(one, one) == one


def test_few_short_texts_are_states():
    """More texts than the limit, or one long text, are no states."""
    many = {str(number) for number in range(MOST_STATES)}
    assert states_of(many) == tuple(sorted(many))
    assert states_of(many | {"more"}) == ()
    assert states_of({"x" * LONGEST_STATE}) == ("x" * LONGEST_STATE,)
    assert states_of({"on", "x" * (LONGEST_STATE + 1)}) == ()


def test_a_day_shows_the_states_of_each_point():
    """Across its windows, whose texts are numbered apart; points without texts are not named."""
    day = day_rows("s", date(2025, 3, 1))
    column = np.array([0, 0, 1], np.int32)
    parts = [
        TextRows(column, np.arange(3, dtype=np.int32), np.array([0, 1, 1], np.int32), ("on", "off")),
        TextRows(column[:2], np.arange(2, dtype=np.int32), np.array([0, 0], np.int32), ("auto",)),
    ]
    assert day_states(replace(day, texts=parts)) == {"s/p0": ("auto", "off", "on"), "s/p1": ("off",)}
    assert day_states(day) == {}


def test_a_point_has_its_own_numbers_before_those_of_any_point():
    """BACnet's numbers are there without a file; case and spaces make no difference."""
    numbers = StateNumbers.from_json('{"Occupied": 1, "active": 5, "s/p1": {"auto": 2, "occupied": -1}}')
    told = [
        numbers.number(*pair) for pair in (("x", " OCCUPIED"), ("s/p1", "occupied"), ("s/p1", "Auto"), ("x", "auto"))
    ]
    assert told == [1, -1, 2, None]
    assert [numbers.number("x", state) for state in ("inactive", "active", "true", "false")] == [0, 5, 1, 0]
    assert StateNumbers().number("x", "Active") == 1


@pytest.mark.parametrize("text", ["[]", "{", '{"on": "1"}', '{"on": true}', '{"on": NaN}', '{"p": {"on": null}}'])
def test_numbers_of_another_form_are_refused(text):
    """A number is a finite number, of a state or of a point's state."""
    with pytest.raises(ValueError, match=r"."):
        StateNumbers.from_json(text)
