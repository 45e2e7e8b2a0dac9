"""`python -m backfill_pipeline.control.cli`, where the script `backfill` is not on the path.

Put here: the call of the command. Keep out: everything else.
"""

from backfill_pipeline.control.cli import main

if __name__ == "__main__":
    main()
