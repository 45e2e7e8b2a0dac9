"""A fetch that is killed in mid-day loses the windows in flight, and nothing else."""

import multiprocessing
import time
from datetime import date

from backfill_pipeline.ace.budget import open_budget
from backfill_pipeline.ace.client import AceClient
from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.simulator.app import DEFAULT_KEY, Simulator
from backfill_pipeline.simulator.world import demo_world
from backfill_pipeline_tests.services import received

SITE, DAY, WINDOWS = "site", date(2025, 3, 1), 4


def fetched(url, folder, rows) -> None:
    """A process: fetch the day, and tell its rows."""
    budget = open_budget(f"sqlite:///{folder.as_posix()}/b.sqlite", key_id="k", per_minute=100_000)
    fetcher = Fetcher(AceClient(url, DEFAULT_KEY, budget), spool=folder, max_page_size=100, max_windows=WINDOWS)
    (day,) = fetcher.days(SITE, [DAY])
    chunks = day.rows.chunks
    rows.put(
        sorted(
            (day.rows.points[code], ms, value)
            for chunk in chunks
            for code, ms, value in zip(chunk.code.tolist(), chunk.ms.tolist(), chunk.value.tolist(), strict=True)
        )
    )


def test_a_fetch_killed_in_mid_day_goes_on_from_its_finished_windows(tmp_path):
    """SIGKILL at three moments: the day is the truth, and no more than the pages in flight were asked for twice."""
    spawn = multiprocessing.get_context("spawn")
    world = demo_world({SITE: 40})
    with Simulator(world, latency_s=0.05) as api:

        def pages() -> list:
            return [request for request in api.requests if request.path.endswith("/paginated")]

        rows, unread = spawn.Queue(), spawn.Queue()
        fetched_whole = spawn.Process(target=fetched, args=(api.url, tmp_path / "whole", rows))
        fetched_whole.start()
        truth = received(rows, fetched_whole)
        fetched_whole.join()
        usual = len(pages())
        for part in (0.1, 0.2, 0.3):  # of the day's pages; what is left after each is more than the next takes
            worker = spawn.Process(target=fetched, args=(api.url, tmp_path / "killed", unread))
            seen = len(pages())
            worker.start()
            while worker.is_alive() and len(pages()) - seen < part * usual:
                time.sleep(0.005)
            worker.kill()
            worker.join()
            assert worker.exitcode  # it was killed, not done
        seen = len(pages())
        last = spawn.Process(target=fetched, args=(api.url, tmp_path / "killed", rows))
        last.start()
        assert received(rows, last) == truth
        last.join()
        asked = len(pages()) - usual
    assert len(truth) > 10_000
    assert len(pages()) - seen < usual * 0.75  # 0.6 were asked for before, less what was in flight at three deaths
    assert asked <= usual + 3 * (WINDOWS + 4) * 2
