"""States: the few different texts of a point, such as "active" and "inactive", and their numbers.

Put here: which points have states, how states of several days are merged, and their numbers. Keep out: where states are
stored (`core/point_catalogue.py`) and how texts are read (`read.py`).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from backfill_pipeline.core.rows import DayRows

MOST_STATES = 16
"""The most states of a point. A point with more different texts has no states: its texts may be names, for example."""

LONGEST_STATE = 64
"""The most characters of a state."""

States = tuple[str, ...]
"""The states of a point, sorted; empty for a point whose texts are too many or too long to be states."""

BACNET_NUMBERS: Mapping[str, float] = {"inactive": 0.0, "active": 1.0, "false": 0.0, "true": 1.0}
"""Numbers of BACnet's binary values (ASHRAE 135, BACnetBinaryPV) and of JSON's booleans."""


def day_states(day: DayRows) -> dict[str, States]:
    """The states of each point that has a text on a day, by the point's name."""
    found: dict[int, set[str]] = {}
    for part in day.texts:
        pairs = np.unique(np.stack([part.code, part.text]), axis=1)
        for code, text in pairs.T.tolist():
            found.setdefault(code, set()).add(part.texts[text])
    return {day.points[code]: states_of(texts) for code, texts in sorted(found.items())}


def states_of(texts: set[str]) -> States:
    """The states of a point from its texts; empty if the texts are too many or too long."""
    if len(texts) > MOST_STATES or any(len(text) > LONGEST_STATE for text in texts):
        return ()
    return tuple(sorted(texts))


def united(one: States | None, other: States | None) -> States | None:
    """Merge the states of a point from two sources; None if neither has a text.

    The result does not depend on the order of several merges. A point with too many texts keeps having no states.
    """
    if one is None or other is None:
        return other if one is None else one
    return states_of({*one, *other}) if one and other else ()


@dataclass(frozen=True)
class StateNumbers:
    """The number of each state; case and surrounding spaces are ignored.

    Attributes:
        any_point: numbers of states of all points.
        points: numbers of states by point; they take precedence over `any_point`.
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
            raise ValueError("not a JSON object")  # noqa: TRY004 - the file is wrong, not the type of an argument
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
