"""Ways to a bucket: from the environment and from `.env`, for writing and for reading alike."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest

from backfill_pipeline import read
from backfill_pipeline.control.check import checked
from backfill_pipeline.errors import SettingError, StoreBusyError, StoreRefusedError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.bucket_access import BucketAccess
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline_tests.network import VARIABLES, RefusingProxy, close, http_server, own_certificate, raw_server
from backfill_pipeline_tests.services import free_port
from backfill_pipeline_tests.storage.bucket import BUCKET, KEY, SECRET, Proxied, bucket_server, emptied
from backfill_pipeline_tests.storage.network_paths import ForwardProxy, signed_certificate
from backfill_pipeline_tests.storage.test_s3 import SITE, day_with

AWS = [
    *("AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"),
]
START, END = datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A bucket, the same bucket over TLS by an own CA, and a forward proxy."""
    ca, chain = signed_certificate(tmp_path_factory.mktemp("ca"))
    seen: list[str] = []
    forward = type("Forward", (ForwardProxy,), {"seen": seen})
    with bucket_server() as bucket, http_server(forward) as proxy:
        host, port = bucket.direct.removeprefix("http://").split(":")
        over_tls = type("Tls", (Proxied,), {"proxy": bucket, "upstream": (host, int(port))})
        with http_server(over_tls, tls=chain) as tls:
            yield SimpleNamespace(
                bucket=bucket,
                http=bucket.url,
                https=f"https://127.0.0.1:{tls}",
                proxy=f"http://127.0.0.1:{proxy}",
                ca=str(ca),
                seen=seen,
            )


@pytest.fixture(autouse=True)
def _clean(network, monkeypatch, tmp_path):
    """No variable of this machine is set; those that a test's `.env` adds are removed after it."""
    for name in [*VARIABLES, *AWS]:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    monkeypatch.chdir(tmp_path)
    emptied(network.bucket.direct)
    network.seen.clear()


KEYS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}


def profile(network, folder: Path) -> dict[str, str]:
    """Credentials, region and endpoint in AWS's own files alone."""
    (folder / "config").write_text(
        "[profile plant]\nregion = eu-north-1\nservices = near\n"
        f"[services near]\ns3 =\n  endpoint_url = {network.http}\n"
    )
    (folder / "credentials").write_text(
        f"[plant]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\naws_session_token = made-up-token\n"
    )
    return {
        "AWS_PROFILE": "plant",
        "AWS_CONFIG_FILE": str(folder / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
    }


WAYS = {
    "own endpoint": lambda n, _: KEYS | {"AWS_ENDPOINT_URL_S3": n.http},
    "generic endpoint": lambda n, _: KEYS | {"AWS_ENDPOINT_URL": n.http},
    "profile": profile,
    "proxy": lambda n, _: KEYS | {"AWS_ENDPOINT_URL": n.http, "HTTP_PROXY": n.proxy},
    "aws ca": lambda n, _: KEYS | {"AWS_ENDPOINT_URL_S3": n.https, "AWS_CA_BUNDLE": n.ca},
    "requests ca": lambda n, _: KEYS | {"AWS_ENDPOINT_URL_S3": n.https, "REQUESTS_CA_BUNDLE": n.ca},
    "proxy and ca": lambda n, _: KEYS | {"AWS_ENDPOINT_URL_S3": n.https, "AWS_CA_BUNDLE": n.ca, "HTTPS_PROXY": n.proxy},
    "no proxy for it": lambda n, _: (
        KEYS | {"AWS_ENDPOINT_URL_S3": n.http, "HTTP_PROXY": f"http://127.0.0.1:{free_port()}", "NO_PROXY": "127.0.0.1"}
    ),
}


@pytest.mark.parametrize("source", ["environment", ".env"])
@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_a_bucket_serves_writing_reading_and_check(network, tmp_path, monkeypatch, way, source):
    """A day is written, read with polars and checked, with the same variables from either place."""
    variables = WAYS[way](network, tmp_path) | {"BACKFILL_STORE": f"s3://{BUCKET}/p"}
    if source == ".env":
        (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    else:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    settings = Settings.load()
    stored = put_day(settings_store(settings), day_with(1))
    through = len(network.seen)
    network.bucket.asked.clear()
    assert len(read.samples(SITE, START, END).polars().collect()) == stored.rows
    assert bool(through) == bool(len(network.seen) > through) == way.startswith("proxy")
    if way == "profile":
        sent = [{name.lower(): value for name, value in asked.headers.items()} for asked in network.bucket.asked]
        assert {headers["x-amz-security-token"] for headers in sent} == {"made-up-token"}
        assert all("/eu-north-1/s3/" in headers["authorization"] for headers in sent)
    through = len(network.seen)
    findings = {finding.name: finding for finding in checked(settings, daemon_is_alive=lambda: True)}
    assert findings["store"].state == "ok"
    assert (len(network.seen) > through) == way.startswith("proxy")


def test_the_environment_wins_over_the_env_file_for_libraries_too(tmp_path, monkeypatch):
    """What is set stays, in whichever letters a proxy is written; what `Settings` reads is not added."""
    (tmp_path / ".env").write_text(
        "AWS_PROFILE=b\nHTTPS_PROXY=http://b\nAWS_ACCESS_KEY_ID=b\nACE_SITES=b\nNO_PROXY=b\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "a")
    monkeypatch.setenv("https_proxy", "http://a")
    Settings.load({}, folder=tmp_path)
    assert "NO_PROXY" not in os.environ
    Settings.load(folder=tmp_path)
    assert (os.environ["AWS_PROFILE"], os.environ["NO_PROXY"]) == ("a", "b")
    assert not {"HTTPS_PROXY", "AWS_ACCESS_KEY_ID", "ACE_SITES"} & set(os.environ)


def test_a_file_of_certificates_that_does_not_exist_is_a_wrong_setting(tmp_path, monkeypatch):
    """The message names both variables and the path."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(SettingError, match=r"AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE holds .*none\.pem"):
        settings_store(Settings(store=f"s3://{BUCKET}"))


@pytest.mark.parametrize("half", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_of_the_credentials_is_a_wrong_setting(tmp_path, half):
    """An access key without its secret, and the other way round, names the variable that is not set."""
    settings = Settings.load({half: SECRET, "BACKFILL_STORE": f"s3://{BUCKET}"}, folder=tmp_path)
    (other,) = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} - {half}
    with pytest.raises(SettingError, match=f"{other} is not set") as caught:
        settings_store(settings)
    assert SECRET not in str(caught.value)


def test_a_bucket_in_the_host_name_is_there_for_polars_too():
    """Readers put the bucket into the host name where botocore does, and leave a region that is unset to AWS."""
    virtual = BucketAccess(BUCKET, "https://store.example:9", "auto", virtual=True)
    assert virtual.polars_options()["aws_endpoint_url"] == f"https://{BUCKET}.store.example:9"
    assert virtual.polars_options()["aws_virtual_hosted_style_request"] == "true"
    assert "URL_STYLE 'vhost'" in virtual.duckdb_statements("s3://x")[-1]
    unset = BucketAccess(BUCKET, "https://s3.amazonaws.com")
    assert "aws_endpoint_url" not in unset.polars_options()
    assert "ENDPOINT" not in unset.duckdb_statements("s3://x")[-1]


def refused(endpoint: str) -> str:
    settings = Settings(
        store=f"s3://{BUCKET}", s3_access_key_id=KEY, s3_secret_access_key=SECRET, s3_endpoint_url=endpoint
    )
    messages = set()
    for attempt in (lambda store: store.head("a"), lambda store: store.put("a", b"x", "00" * 32)):
        with pytest.raises(StoreRefusedError) as caught:
            attempt(settings_store(settings))
        assert caught.value.hint
        messages.add(str(caught.value).partition(": ")[2])
    (message,) = messages
    assert "\n" not in message
    return message


def test_a_certificate_that_is_not_trusted_is_named(network, tmp_path):
    """An own CA, one that has expired, and one for another host: the certificate and the variable are named."""
    assert "certificate is not trusted" in refused(network.https)
    assert "AWS_CA_BUNDLE" in refused(network.https)
    with http_server(tls=own_certificate(tmp_path, host="other.example")) as port:
        assert "certificate is not trusted" in refused(f"https://127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_password_is_named(network, monkeypatch, scheme):
    """HTTP 407, as the answer to a request or to CONNECT, names the proxy and its variable, and no password."""
    variable = f"{scheme.upper()}_PROXY"
    with http_server(RefusingProxy) as port:
        monkeypatch.setenv(variable, f"http://me:hush@127.0.0.1:{port}")
        message = refused(getattr(network, scheme))
    assert "the proxy refused the connection" in message
    assert "407" in message
    assert variable in message
    assert "hush" not in message
    monkeypatch.setenv(variable, f"http://me:hush@127.0.0.1:{free_port()}")
    message = refused(getattr(network, scheme))
    assert "the proxy cannot be reached" in message
    assert "hush" not in message


def test_a_connection_that_a_proxy_cuts_is_a_passing_fault(network, monkeypatch):
    """A proxy that can be reached and ends the connection makes the store busy: trying again may help."""
    with raw_server(close) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        settings = Settings(
            store=f"s3://{BUCKET}", s3_access_key_id=KEY, s3_secret_access_key=SECRET, s3_endpoint_url=network.http
        )
        with pytest.raises(StoreBusyError, match="closed before an answer"):
            settings_store(settings).head("a")


def test_https_to_a_port_that_speaks_http_is_named(network):
    """The message names the scheme."""
    assert "speaks http, not https" in refused(network.http.replace("http:", "https:"))


def test_duckdb_gets_the_same_access(network):
    """The statements name endpoint, region, credentials, proxy and CA; quotes in a secret stay part of it."""
    access = BucketAccess(
        BUCKET,
        network.https,
        "eu-north-1",
        KEY,
        "it's",
        "token",
        proxy="http://me:p%40ss@proxy:8080",
        ca_file=Path("c"),
    )
    text = "; ".join(access.duckdb_statements(f"s3://{BUCKET}/p/"))
    for part in (
        f"KEY_ID '{KEY}', SECRET 'it''s', SESSION_TOKEN 'token', REGION 'eu-north-1'",
        f"ENDPOINT '{network.https.removeprefix('https://')}', URL_STYLE 'path', ",
        f"SCOPE 's3://{BUCKET}/p/', USE_SSL true",
        "SET http_proxy = 'proxy:8080'",
        "SET http_proxy_username = 'me'",
        "SET http_proxy_password = 'p@ss'",
        "SET ca_cert_file = 'c'",
    ):
        assert part in text
    assert not any(secret in repr(access) for secret in ("it's", "token", "p%40ss"))


def test_duckdb_reads_the_bucket_where_its_extension_is_available(network, monkeypatch):
    """`read.duckdb_connection` counts the rows of a day; without the extension its error shows no secret."""
    variables = KEYS | {"AWS_ENDPOINT_URL": network.http, "BACKFILL_STORE": f"s3://{BUCKET}/p"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stored = put_day(settings_store(Settings.load()), day_with(1))
    try:
        with duckdb.connect() as plain:
            plain.execute("INSTALL httpfs")
            plain.execute("LOAD httpfs")
    except duckdb.Error:
        with pytest.raises(StoreRefusedError, match="INSTALL httpfs") as caught:
            read.duckdb_connection()
        assert SECRET not in str(caught.value)
        return
    with read.duckdb_connection() as connection:
        (count,) = connection.execute("SELECT count(*) FROM read_parquet(?)", [stored.url]).fetchone()
    assert count == stored.rows


def test_duckdb_reads_a_folder_without_any_extension(tmp_path):
    """A folder needs no statement."""
    settings = Settings(store=str(tmp_path / "data"))
    stored = put_day(settings_store(settings), day_with(1))
    with read.duckdb_connection(settings) as connection:
        (count,) = connection.execute("SELECT count(*) FROM read_parquet(?)", [stored.url]).fetchone()
    assert count == stored.rows
