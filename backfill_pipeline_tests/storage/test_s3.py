"""A bucket as a store, over the wire: put whole or not at all, each fault has its outcome, each error its name."""

import hashlib
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import cache

import numpy as np
import pytest

from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.errors import DamagedObjectError, SettingError, StoreBusyError, StoreRefusedError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import get_day, put_day, settings_store, wrong_object
from backfill_pipeline.storage.s3 import S3Store
from backfill_pipeline_tests.services import free_port
from backfill_pipeline_tests.storage.bucket import (
    BUCKET,
    KEY,
    SECRET,
    Proxy,
    answers,
    broken_off,
    bucket_server,
    client,
    cut,
    emptied,
    flipped,
    half,
    lost,
    slow,
    unheard,
)

DAY = date(2024, 2, 29)
SITE = "Büro 1.north"


def day_with(value: float, rows: int = 20_000) -> DayRows:
    values = np.random.default_rng(int(value)).random(rows) + value
    chunk = Chunk(np.zeros(rows, np.int32), np.arange(rows, dtype=np.int32), values)
    return DayRows(SITE, DAY, ["p"], [chunk], Counts(rows, rows))


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    with bucket_server() as proxy:
        yield proxy


@pytest.fixture
def proxy(server: Proxy) -> Iterator[Proxy]:
    server.reset()
    emptied(server.direct)
    yield server
    server.reset()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """Botocore waits between its tries: here it does not."""
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)


@cache  # making a client takes longer than most tests
def store_at(url: str, **options) -> S3Store:
    options = {"access_key": KEY, "secret": SECRET, "endpoint": url, "region": "auto", "timeout_s": 5} | options
    return S3Store(BUCKET, "some/prefix", **options)


def test_a_day_is_put_read_back_listed_and_removed(proxy):
    """The whole road of an object in a bucket, at a prefix, with any site name."""
    store = store_at(proxy.url)
    stored = put_day(store, day_with(1))
    assert stored.changed
    assert stored.url == f"s3://bucket/some/prefix/timeseries/2024/02/29/{SITE}.parquet"
    assert get_day(store, SITE, DAY).num_rows == 20_000
    (listed,) = store.list("timeseries/")
    assert (listed.key, listed.bytes, listed.etag) == (stored.key, stored.bytes, stored.etag)
    assert stored.etag == hashlib.md5(store.get(stored.key)).hexdigest()  # noqa: S324 - S3's own mark of a single put
    head = store.head(stored.key)
    assert (head.bytes, head.named) == (stored.bytes, stored.sha256)
    assert store.get(stored.key, last=4) == b"PAR1"
    assert not put_day(store, day_with(1)).changed
    store.delete(stored.key)
    assert store.head(stored.key) is None
    assert wrong_object(store, SITE, DAY) is None
    with pytest.raises(FileNotFoundError):
        store.get(stored.key)


def test_a_put_is_one_request_with_its_checksum_as_a_plain_header(proxy):
    """R2's rules: no trailer, no chunks of the client's own, one checksum, region `auto`; and no multipart upload."""
    put_day(store_at(proxy.url), day_with(1))
    (put,) = [asked for asked in proxy.asked if asked.method == "PUT"]
    headers = {name.lower(): value for name, value in put.headers.items()}
    assert [name for name in headers if name.startswith("x-amz-checksum")] == ["x-amz-checksum-sha256"]
    assert not {"x-amz-trailer", "content-encoding", "transfer-encoding", "content-md5"} & set(headers)
    assert not headers["x-amz-content-sha256"].startswith("STREAMING")
    assert "/auto/s3/aws4_request" in headers["authorization"]
    assert client(proxy.direct).list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []


@pytest.mark.parametrize(
    "fault",
    [
        answers(500, "InternalError"),
        answers(503, "SlowDown"),
        answers(503, "ServiceUnavailable"),
        cut,
        unheard,
        half,
        broken_off,
        slow(0.5),
    ],
    ids=lambda fault: getattr(fault, "__name__", "answer"),
)
@pytest.mark.parametrize("at", range(5))
def test_a_passing_fault_at_any_request_of_a_put_costs_a_try_and_no_more(proxy, fault, at):
    """Whichever of the requests it befalls, the day ends stored, whole and verified."""
    proxy.faults.extend([None] * at + [fault])
    stored = put_day(store_at(proxy.url, timeout_s=0.3 if fault.__qualname__.startswith("slow") else 5), day_with(1))
    assert get_day(store_at(proxy.direct), SITE, DAY).num_rows == stored.rows


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (answers(500, "InternalError"), "busy"),
        (answers(503, "SlowDown"), "slow down"),
        (answers(429, "TooManyRequests"), "slow down"),
        (cut, "transfer failed"),
        (broken_off, "transfer failed"),
        (slow(0.4), "transfer failed"),
        (flipped, "damaged on the way"),
    ],
)
def test_a_fault_that_stays_leaves_no_half_object_and_is_called_passing(proxy, fault, word):
    """After the last try: an error that says to start again, and nothing or, of an answer too slow, a whole day."""
    store = store_at(proxy.url, tries=2, timeout_s=0.2)
    proxy.faults.extend([None, None])  # HEAD, and the GET that names its error
    proxy.always = fault
    with pytest.raises(StoreBusyError, match=word):
        put_day(store, day_with(1))
    slow_one = fault.__qualname__.startswith("slow")
    assert wrong_object(store_at(proxy.direct), SITE, DAY) in ([None, []] if slow_one else [None])


def test_a_put_that_is_damaged_on_the_way_is_put_again(proxy):
    """The store refuses what does not fit its checksum, and the next try arrives."""
    proxy.faults.extend([None, None, flipped, flipped])
    assert put_day(store_at(proxy.url), day_with(1)).changed
    assert get_day(store_at(proxy.direct), SITE, DAY).num_rows == 20_000


def test_a_lost_part_is_found_out(proxy):
    """A store that kept half of what it was given is caught by the read-back: size first."""
    proxy.faults.extend([None, None, lost])
    with pytest.raises(DamagedObjectError, match="does not match what was written"):
        put_day(store_at(proxy.url), day_with(1))
    assert wrong_object(store_at(proxy.direct), SITE, DAY)
    assert put_day(store_at(proxy.direct), day_with(1)).changed


def test_a_read_that_is_cut_is_tried_again_and_then_told(proxy):
    """A connection that breaks inside an answer costs a try; one that always does is a passing error."""
    put_day(store_at(proxy.direct), day_with(1))
    proxy.faults.extend([half, half])
    assert get_day(store_at(proxy.url), SITE, DAY).num_rows == 20_000
    proxy.always = half
    with pytest.raises(StoreBusyError, match="transfer failed"):
        get_day(store_at(proxy.url), SITE, DAY)


REFUSALS = [
    (404, "NoSuchBucket", "no such bucket"),
    (403, "AccessDenied", "no right to (list|write)"),
    (401, "Unauthorized", "AWS_ACCESS_KEY_ID"),
    (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
    (403, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
    (403, "RequestTimeTooSkewed", "clock is wrong"),
    (400, "ExpiredToken", "expired"),
    (400, "AuthorizationHeaderMalformed", "AWS_REGION"),
    (507, "XMinioStorageFull", "full"),
    (404, "", "not as S3 does"),
    (405, "", "not as S3 does"),
    (418, "Teapot", "refused \\(Teapot: as told\\)"),
]


@pytest.mark.parametrize(("status", "code", "word"), REFUSALS)
def test_refusals_are_told_apart(proxy, status, code, word):
    """Each names its cause and what to check, on the first request (HEAD, which has no body) as on a read."""
    proxy.always = answers(status, code)
    store = store_at(proxy.url)
    for attempt in (
        lambda: put_day(store, day_with(1)),
        lambda: store.get("a"),
        lambda: store.put("a", b"x", "00" * 32),
        lambda: list(store.list("")),
    ):
        with pytest.raises(StoreRefusedError, match=word) as caught:
            attempt()
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_no_missing_object(proxy):
    """The server's own answers: no such bucket, and a name that no bucket can have."""
    nowhere = S3Store("nowhere", access_key=KEY, secret=SECRET, endpoint=proxy.direct)
    with pytest.raises(StoreRefusedError, match="no such bucket"):
        put_day(nowhere, day_with(1))
    with pytest.raises(StoreRefusedError, match="no bucket can have this name"):
        S3Store("a b", access_key=KEY, secret=SECRET, endpoint=proxy.direct).head("x")


def test_an_endpoint_that_is_not_there_is_told():
    """Nobody listens, or no such name: the endpoint is named."""
    port = free_port()
    with pytest.raises(StoreRefusedError, match=f"127.0.0.1:{port}.*AWS_ENDPOINT_URL_S3"):
        store_at(f"http://127.0.0.1:{port}", tries=2).head("a")


def test_an_endpoint_that_speaks_no_http_is_told():
    """A server that hangs up is a transfer that failed."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:

        def hang_up() -> None:
            for _ in range(2):
                connection, _ = listening.accept()
                connection.recv(100)
                connection.close()

        done = pool.submit(hang_up)
        with pytest.raises(StoreBusyError, match="transfer failed"):
            store_at(f"http://127.0.0.1:{listening.getsockname()[1]}", tries=2).put("a", b"", "00" * 32)
        done.result(5)


def test_without_credentials_the_variables_are_named(monkeypatch, tmp_path):
    """No key in the settings and none in the usual AWS chain."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(StoreRefusedError, match="Set AWS_ACCESS_KEY_ID"):
        S3Store(BUCKET, endpoint="http://127.0.0.1:1", region="auto").head("a")


def test_credentials_that_cannot_be_renewed_are_told(monkeypatch, tmp_path):
    """A profile whose own program fails, and one that is not there: each says so before anything is asked."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "config"
    program = f'"{sys.executable}" -c "raise SystemExit(1)"'
    config.write_text(f"[profile worn]\ncredential_process = {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "worn")
    with pytest.raises(SettingError, match="retrieving credentials"):
        S3Store(BUCKET, endpoint="http://127.0.0.1:1", region="auto")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SettingError, match="nobody"):
        S3Store(BUCKET, endpoint="http://127.0.0.1:1", region="auto")


def test_the_settings_open_the_bucket_with_their_credentials(proxy, tmp_path):
    """Key, secret, session token, endpoint and region from the environment reach the requests."""
    found = {
        "BACKFILL_STORE": f"s3://{BUCKET}/there",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": "made-up-token",
        "AWS_ENDPOINT_URL_S3": proxy.url,
        "AWS_REGION": "eu-central-1",
    }
    settings = Settings.load(found, folder=tmp_path)
    assert settings_store(settings).head("a") is None
    headers = {name.lower(): value for name, value in proxy.asked[-1].headers.items()}
    assert headers["x-amz-security-token"] == "made-up-token"
    assert f"{KEY}/" in headers["authorization"]
    assert "/eu-central-1/s3/" in headers["authorization"]
    assert "made-up-token" not in repr(settings)


def test_of_two_runs_at_once_one_whole_object_remains(proxy):
    """Many writers of one day: the object is one of theirs, whole, and who is overtaken says so or is right."""
    store = store_at(proxy.direct)

    def put(value: int):
        try:
            return put_day(store, day_with(value)).sha256
        except StoreBusyError as error:
            assert "another run" in str(error)  # noqa: PT017 - not every writer is overtaken
            return None

    with ThreadPoolExecutor(4) as pool:
        hashes = list(pool.map(put, range(8)))
    assert wrong_object(store, SITE, DAY) == []
    assert store.head(next(iter(store.list(""))).key).named in hashes
    assert get_day(store, SITE, DAY).num_rows == 20_000


def test_a_store_that_answered_before_is_only_busy_when_it_cannot_be_reached(proxy):
    """An endpoint that never answered is a wrong setting; one that has answered is away for a while."""
    place = {"endpoint": f"http://127.0.0.1:{free_port()}", "tries": 1}
    never, before = store_at("", **place), store_at("", **place, timeout_s=4)
    with pytest.raises(StoreRefusedError, match="no connection"):
        never.head("x")
    before._client = store_at(proxy.url)._client
    assert before.head("x") is None
    before._client = never._client
    with pytest.raises(StoreBusyError, match="no connection"):
        before.head("x")
