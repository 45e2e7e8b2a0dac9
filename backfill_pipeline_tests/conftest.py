"""What holds for all tests: property tests are not timed, since a busy machine would fail them by chance."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
