"""Dagster's own daemon, in a hurry: it looks after backfills every few seconds instead of every thirty.

Put here: that one number, which Dagster lets nobody set. Keep out: anything else that journeys would not meet for real.
"""

from dagster._daemon import controller
from dagster._daemon.cli import main

if __name__ == "__main__":
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 3
    main()
