"""What holds for all tests: the long ones start first, and property tests are not timed.

A busy machine would fail timed property tests by chance.
"""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items):
    """Journeys first: they wait more than they work, and the many short tests fill the processors meanwhile."""
    items.sort(key=lambda item: "journeys" not in item.path.parts)
