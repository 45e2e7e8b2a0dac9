"""CPU seconds of this pipeline against the floor: three seed-sized days, whole processes, in turn.

The floor (`contenders/floor.py`) has the same scanner, encoder and store, and nothing around them.

    python benchmarks/floor.py --times 3
"""

import argparse
import sys
from statistics import median

from feeder import served
from run import FEED, HERE, SAMPLES, Contender, Measured, turn

PART = "three days"


def main() -> None:
    """Run both in turn and print the medians."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--times", type=int, default=1)
    chosen = arguments.parse_args()
    scripts = {"floor": "floor.py", "this pipeline": "ours.py"}
    turns: dict[str, list[Measured]] = {title: [] for title in scripts}
    with served(FEED) as url:
        for _ in range(chosen.times):
            for title, script in scripts.items():
                one = Contender(title, (sys.executable, str(HERE / "contenders" / script)), PART)
                turns[title].append(turn(one, url))
    print(f"{'medians of ' + str(chosen.times):<16} {'s':>7} {'CPU s':>7} {'CPU s/M':>8} {'MB':>7}")
    for title, found in turns.items():
        seconds, cpu, peak = (median(getattr(one, name) for one in found) for name in ("seconds", "cpu", "peak"))
        print(f"{title:<16} {seconds:>7.1f} {cpu:>7.1f} {cpu / SAMPLES[PART] * 1e6:>8.2f} {peak / 1e6:>7,.0f}")


if __name__ == "__main__":
    main()
