"""A folder as a store: put whole or not at all, nothing left behind, errors told apart."""

import errno
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.errors import DamagedObjectError, StoreBusyError, StoreRefusedError
from backfill_pipeline.storage.days import put_day
from backfill_pipeline.storage.local import PARTS, LocalStore

DAY = date(2024, 2, 29)


def day_with(value: float) -> DayRows:
    chunk = Chunk(np.array([0], np.int32), np.array([5], np.int32), np.array([value]))
    return DayRows("a", DAY, ["p"], [chunk], Counts(1, 1))


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_an_unchanged_day_is_not_written_again(tmp_path):
    """Putting the same rows twice says `changed` once and leaves the file as it was."""
    store = LocalStore(tmp_path)
    first = put_day(store, day_with(1.0))
    before = (tmp_path / first.key).stat().st_mtime_ns
    second = put_day(store, day_with(1.0))
    assert (first.changed, second.changed) == (True, False)
    assert (tmp_path / first.key).stat().st_mtime_ns == before
    assert put_day(store, day_with(2.0)).changed


def test_nothing_but_the_object_is_left_in_the_folder(tmp_path):
    """After a put there is one file, and no part of one."""
    stored = put_day(LocalStore(tmp_path), day_with(1.0))
    assert files(tmp_path) == [stored.key]


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
    ],
)
def test_a_put_that_fails_leaves_the_old_object(tmp_path, monkeypatch, number, word):
    """Whatever the disk says in mid-write: the old day stays whole, no part is left, the message says what to do."""
    store = LocalStore(tmp_path)
    stored = put_day(store, day_with(1.0))

    def fails(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(StoreRefusedError, match=word):
        put_day(store, day_with(2.0))
    assert store.head(stored.key).sha256 == stored.sha256
    assert files(tmp_path) == [stored.key]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_told_by_the_disk_itself(tmp_path, monkeypatch):
    """The kernel's own ENOSPC ends as one line that says the disk is full."""
    opened = Path.open

    def full(path, mode="r", *args):
        return opened(Path("/dev/full"), "wb") if mode == "xb" else opened(path, mode, *args)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StoreRefusedError, match="the disk is full"):
        put_day(LocalStore(tmp_path), day_with(1.0))
    assert files(tmp_path) == []


def test_a_file_in_the_way_is_told(tmp_path):
    """A store that is a file, and a file where a folder should be, name the setting to check."""
    (tmp_path / "store").write_text("x")
    with pytest.raises(StoreRefusedError, match="BACKFILL_STORE"):
        put_day(LocalStore(tmp_path / "store"), day_with(1.0))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_read_only_folder_is_told(tmp_path):
    """A folder without the right to write is named, with what to check."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreRefusedError, match="no permission"):
            put_day(LocalStore(tmp_path), day_with(1.0))
    finally:
        tmp_path.chmod(0o700)


def test_parts_of_writers_that_died_are_swept_up(tmp_path):
    """A put removes what a killed process of this machine left, at once, and leaves what a living one writes."""
    store = LocalStore(tmp_path)
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from backfill_pipeline.storage.local import LocalStore\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGTERM) or os._exit(1)\n"
        "LocalStore(Path(sys.argv[1])).put('timeseries/2024/02/29/a.parquet', b'half', '')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert [name.split("/")[0] for name in files(tmp_path)] == [PARTS]
    living = tmp_path / PARTS / next((tmp_path / PARTS).iterdir()).name.replace(".", f".{os.getpid()}.", 1)
    living.write_bytes(b"being written")
    stored = put_day(store, day_with(1.0))
    assert files(tmp_path) == [f"{PARTS}/{living.name}", stored.key]
    assert [stat.key for stat in store.list("")] == [stored.key]


def test_a_store_that_loses_what_it_was_given_is_found_out(tmp_path):
    """A day is done only when its object has been read back."""

    class Forgetful(LocalStore):
        def put(self, key, data, sha256):
            return super().put(key, data[:-1], sha256)

    with pytest.raises(DamagedObjectError, match="does not match what was written"):
        put_day(Forgetful(tmp_path), day_with(1.0))


def test_a_run_that_is_overtaken_says_so(tmp_path):
    """Two runs at once: one whole object, and the run whose rows it does not hold does not claim that it does."""

    class Contested(LocalStore):
        def put(self, key, data, sha256):
            stat = super().put(key, data, sha256)
            put_day(LocalStore(self.folder), day_with(2.0))
            return stat

    with pytest.raises(StoreBusyError, match="another run"):
        put_day(Contested(tmp_path), day_with(1.0))
    assert not put_day(LocalStore(tmp_path), day_with(2.0)).changed


def test_a_listing_is_of_its_prefix(tmp_path):
    """A prefix is a folder, part of a name, or nothing."""
    store = LocalStore(tmp_path)
    for key in ("a/b/1", "a/b/2", "a/c", "ab"):
        store.put(key, b"x", "")
    listed = {prefix: [stat.key for stat in store.list(prefix)] for prefix in ("", "a", "a/", "a/b/", "no/")}
    assert listed == {
        "": ["a/b/1", "a/b/2", "a/c", "ab"],
        "a": ["a/b/1", "a/b/2", "a/c", "ab"],
        "a/": ["a/b/1", "a/b/2", "a/c"],
        "a/b/": ["a/b/1", "a/b/2"],
        "no/": [],
    }


def test_an_object_can_be_deleted_and_deleting_what_is_not_there_is_no_error(tmp_path):
    """Afterwards there is none."""
    store = LocalStore(tmp_path)
    store.put("a", b"x", "")
    store.delete("a")
    store.delete("a")
    assert store.head("a") is None
