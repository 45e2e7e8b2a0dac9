"""The figures of groups of samples are those of exact arithmetic."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from backfill_pipeline.core.hourly_values import group_figures

VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-100, 100),
    st.sampled_from([1e16, -1e16, 1.0, 1.7e308, -1.7e308, 0.1]),
)


@given(st.lists(st.lists(VALUES, min_size=1, max_size=70), max_size=6))
@example_settings(deadline=None)
def test_figures_are_exact(groups):
    """Minimum, maximum and last value are bits of a sample; the mean has a relative error of 1e-12 at most."""
    place = np.repeat(np.arange(len(groups)), [len(one) for one in groups]).astype(np.int64)
    value = np.array([v for one in groups for v in one], float)
    found = group_figures(np.zeros(len(value), np.int8), place, value)
    assert found.count.tolist() == [len(one) for one in groups]
    assert found.min.tolist() == [min(one) for one in groups]
    assert found.max.tolist() == [max(one) for one in groups]
    assert found.last.tolist() == [one[-1] for one in groups]
    for mean, one in zip(found.mean.tolist(), groups, strict=True):
        exact = sum(map(Fraction, one)) / len(one)
        assert abs(Fraction(mean) - exact) <= max(abs(exact) / 10**12, Fraction(5e-324))
