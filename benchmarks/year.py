"""The seed's year, or as many days of it as there is time for: days of 6.6 M kept samples through the whole pipeline.

A throw-away installation with the project's own `dagster.yaml` and its daemon; one site of 6,500 points that report
every minute, 4,583 of them configured; pages from `feeder.py`, without a limit. Printed as it goes: days stored,
seconds, the most memory of one process, the size of run storage. At the end the growth of each figure from the first
third of the days to the last, and what 365 days would take at the rate of the last two thirds.

    python benchmarks/year.py --days 10
    python benchmarks/year.py --days 365
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path

import psutil
from feeder import Feed, served

TOP = Path(__file__).parent.parent
FIRST = date(2024, 1, 1)
YEAR = 365


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started."""
    with suppress(psutil.NoSuchProcess):
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return []


class Course:
    """How the figures went: at each look seconds, days stored, largest process, all processes, run storage."""

    def __init__(self) -> None:
        self.looks: list[tuple[float, int, int, int, int]] = []
        self.cpu: dict[tuple[int, float], float] = {}

    def look(self, began: float, done: int, pid: int, home: Path) -> None:
        """Take one."""
        memory = [0]
        for one in family(pid):
            with suppress(psutil.NoSuchProcess):
                memory.append(one.memory_info().rss)
                used = one.cpu_times()
                self.cpu[one.pid, one.create_time()] = used.user + used.system
        storage = sum(size_of(home / ".dagster" / name) for name in ("history", "runs", "schedules", "storage"))
        storage = storage or size_of(home / ".dagster") - size_of(home / ".dagster" / "spool")
        self.looks.append((time.monotonic() - began, done, max(memory), sum(memory), storage))

    def when(self, days: int) -> float:
        """Seconds after which so many days were stored."""
        return next(at for at, done, *_ in self.looks if done >= days)

    def peak(self, first: int, last: int) -> float:
        """MB of the largest process while days `first` to `last` were at work."""
        return max(largest for _, done, largest, *_ in self.looks if first <= done <= last) / 1e6


def run(days: int, per_run: int) -> Course:
    """One backfill of so many days."""
    home = Path(tempfile.mkdtemp(prefix="backfill-year-"))
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(TOP / name, home)
    course = Course()
    with served(Feed(6_500, 4_583)) as url:
        os.environ.update(
            {
                "ACE_API_URL": url, "ACE_API_KEY": "key", "ACE_SITES": "site", "ACE_REQUESTS_PER_MINUTE": "100000",
                "BACKFILL_FIRST_DAY": str(FIRST), "BACKFILL_NEW_DAYS": "0", "BACKFILL_DAYS_PER_RUN": str(per_run),
                "BACKFILL_STORE": str(home / "data"), "DAGSTER_HOME": str(home), "PYTHONPATH": str(TOP),
            }
        )  # fmt: skip
        from backfill_pipeline.control.dagster_instance import Gateway  # noqa: PLC0415 - reads the environment that was set
        from backfill_pipeline.settings import Settings  # noqa: PLC0415 - as above

        gateway = Gateway(Settings.load(folder=home))
        with (home / "daemon.log").open("w") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "dagster._daemon", "run", "-w", str(home / "workspace.yaml")],
                cwd=home, stdout=log, stderr=log,
            )  # fmt: skip
        began = time.monotonic()
        try:
            backfill_id = gateway.launch(["site"], [FIRST + timedelta(days=number) for number in range(days)])
            told = 0
            while True:
                done = len(gateway.days_stored(["site"])["site"])
                course.look(began, done, daemon.pid, home)
                at, _, largest, _, storage = course.looks[-1]
                if done >= told + max(1, days // 10):
                    told = done
                    print(
                        f"{done:4} days, {at:6.0f} s, {largest / 1e6:,.0f} MB, storage {storage / 1e6:.1f} MB",
                        flush=True,
                    )
                if gateway.instance.get_backfill(backfill_id).status.value not in ("REQUESTED", "FAILING"):
                    break
                time.sleep(0.5)
            if done < days:
                raise SystemExit(f"only {done} of {days} days were stored: {home / 'daemon.log'}")
        finally:
            for one in family(daemon.pid):
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            daemon.wait()
            gateway.instance.dispose()
    shutil.rmtree(home, ignore_errors=True)
    return course


def main() -> None:
    """Run it, and print growth and what a year would take."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--days", type=int, default=10)
    arguments.add_argument("--per-run", type=int, default=30)
    chosen = arguments.parse_args()
    days, third = chosen.days, chosen.days // 3
    course = run(days, chosen.per_run)
    first = (course.when(third) - course.when(1)) / (third - 1) if third > 1 else float("nan")
    last = (course.when(days) - course.when(days - third)) / third
    rate = (course.when(days) - course.when(third)) / (days - third)
    storage = course.looks[-1][4] - next(look[4] for look in course.looks if look[1] >= 1)
    print(f"{days} days in {course.looks[-1][0]:.0f} s, the first after {course.when(1):.0f} s")
    print(f"seconds a day: first third {first:.2f}, last third {last:.2f}")
    before, after = course.peak(0, third), course.peak(days - third, days)
    print(f"largest process, MB: first third {before:,.0f}, last third {after:,.0f}")
    print(f"CPU of all our processes: {sum(course.cpu.values()) / days:.1f} s a day")
    print(f"run storage: {course.looks[-1][4] / 1e6:.1f} MB, {storage / max(1, days - 1) / 1e3:.1f} kB a day more")
    print(
        f"{YEAR} days at this rate: {(course.when(1) + YEAR * rate) / 60:.0f} minutes, run storage "
        f"{(course.looks[-1][4] + storage / max(1, days - 1) * (YEAR - days)) / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
