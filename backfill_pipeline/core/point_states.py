"""States: the few different texts of a point such as "active" and "inactive", and the numbers that stand for them.

Put here: which points have states, how states of several days are united, and their numbers. Keep out: where states are
kept (`core/point_catalogue.py`) and how texts are read (`read.py`).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from backfill_pipeline.core.rows import DayRows

MOST_STATES = 16
"""Different texts that a point with states has at most; a point with more has texts of another kind, such as names."""

LONGEST_STATE = 64
"""Characters of a state at most."""

States = tuple[str, ...]
"""The states of a point, sorted; empty for a point whose texts are too many or too long to be states."""

BACNET_NUMBERS: Mapping[str, float] = {"inactive": 0.0, "active": 1.0, "false": 0.0, "true": 1.0}
"""Numbers of BACnet's binary values (ASHRAE 135, BACnetBinaryPV) and of JSON's booleans."""


def day_states(day: DayRows) -> dict[str, States]:
    """The states of each point that has a text on a day, by name."""
    found: dict[int, set[str]] = {}
    for part in day.texts:
        pairs = np.unique(np.stack([part.code, part.text]), axis=1)
        for code, text in pairs.T.tolist():
            found.setdefault(code, set()).add(part.texts[text])
    return {day.points[code]: states_of(texts) for code, texts in sorted(found.items())}


def states_of(texts: set[str]) -> States:
    """Some texts of a point as its states; empty if they are too many or too long."""
    if len(texts) > MOST_STATES or any(len(text) > LONGEST_STATE for text in texts):
        return ()
    return tuple(sorted(texts))


def united(one: States | None, other: States | None) -> States | None:
    """The states of a point that are known from two sources; None: no text is known.

    The order and the number of unions make no difference: a point whose texts were too many stays so.
    """
    if one is None or other is None:
        return other if one is None else one
    return states_of({*one, *other}) if one and other else ()


@dataclass(frozen=True)
class StateNumbers:
    """Numbers that stand for states; case and spaces around a state make no difference.

    Attributes:
        any_point: numbers of states, of whatever point.
        points: by point, numbers of its states, which come before those of `any_point`.
    """

    any_point: Mapping[str, float] = field(default_factory=lambda: BACNET_NUMBERS)
    points: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> "StateNumbers":
        """Read a file of numbers, `{"occupied": 1, "NAME OF A POINT": {"auto": 2}}`; BACnet's numbers are added.

        Raises:
            ValueError: the file is not such JSON.
        """
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004 - of a file, not of an argument
        points = {name: value for name, value in found.items() if isinstance(value, dict)}
        states = {name: value for name, value in found.items() if name not in points}
        return cls({**BACNET_NUMBERS, **_numbers(states)}, {name: _numbers(value) for name, value in points.items()})

    def number(self, point: str, text: str) -> float | None:
        """The number of a state; None if it has none."""
        state = _form(text)
        own = self.points.get(point, {}).get(state)
        return self.any_point.get(state) if own is None else own


def _numbers(states: Mapping[str, object]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for state, number in states.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"the number of the state {state!r} is not a finite number")
        numbers[_form(state)] = float(number)
    return numbers


def _form(text: str) -> str:
    return text.strip().casefold()
