"""Log files of earlier starts are kept, and not without end."""

from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.control.processes import KEPT_LOGS, keep_earlier


@given(starts=st.integers(1, 12), most=st.integers(1, 6))
def test_the_latest_logs_are_kept_in_order(tmp_path_factory, starts, most):
    """After any number of starts: `.1` is of the previous one, and no more than so many are there."""
    log = tmp_path_factory.mktemp("logs") / "daemon.log"
    assert keep_earlier(log, most=most) is None
    for number in range(starts):
        log.write_text(str(number), encoding="utf-8")
        assert keep_earlier(log, most=most) == log.with_name("daemon.log.1")
    kept = [path.read_text(encoding="utf-8") for path in sorted(log.parent.iterdir())]
    assert kept == [str(number) for number in range(starts - 1, max(-1, starts - 1 - most), -1)]


def test_an_empty_log_takes_no_place(tmp_path):
    """A start that wrote nothing pushes no log of a crash out."""
    (tmp_path / "a.log").touch()
    assert keep_earlier(tmp_path / "a.log") is None
    assert KEPT_LOGS == 5
