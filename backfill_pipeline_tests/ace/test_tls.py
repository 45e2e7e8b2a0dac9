"""Postgres and Redis over TLS, by the options of their URLs: a certificate that is not trusted is refused."""

import os
import ssl
import subprocess
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from backfill_pipeline.ace.budget import open_budget
from backfill_pipeline.errors import SettingError
from backfill_pipeline.orchestration.celery_launcher import WorkersRunLauncher
from backfill_pipeline.orchestration.instance_storages import check_postgres, postgres_storage
from backfill_pipeline.settings import Settings
from backfill_pipeline_tests.services import ended, free_port, postgres_server, program, wait_for


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1 and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "server.crt", folder / "server.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    paths[1].chmod(0o600)
    return paths


@pytest.fixture(scope="module")
def files():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the user of Postgres reads there
        made = certificate(Path(folder))
        other = Path(folder) / "other"
        other.mkdir()
        certificate(other)
        yield *made, other / "server.crt"


@contextmanager
def redis_over_tls(cert: Path, key: Path):
    """A Redis server that takes TLS connections alone; its URL."""
    port = free_port()
    command = [program("redis-server"), "--port", "0", "--tls-port", str(port), "--tls-cert-file", str(cert)]
    command += ["--tls-key-file", str(key), "--tls-auth-clients", "no", "--save", "", "--bind", "127.0.0.1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=cert.parent)
    with ended(process):
        wait_for(port, process)
        yield f"rediss://127.0.0.1:{port}/0"


def spent(url: str) -> int:
    """Requests that the budget of this URL counts after one has left."""
    budget = open_budget(url, key_id="k", per_minute=50)
    budget.acquire()
    return budget.used()


def test_a_redis_budget_and_broker_verify_the_servers_certificate(files):
    """`rediss://` verifies by default; `ssl_ca_certs` names the trusted certificates."""
    cert, key, other = files
    with redis_over_tls(cert, key) as url:
        assert spent(f"{url}?ssl_ca_certs={cert}") == 1
        for wrong in (url, f"{url}?ssl_ca_certs={other}"):
            with pytest.raises(SettingError, match="BACKFILL_LIMITER"):
                open_budget(wrong, key_id="k", per_minute=50)
        celery = WorkersRunLauncher.of(Settings(broker=f"{url}?ssl_ca_certs={cert}")).celery
        with celery.connection() as connection:
            connection.ensure_connection(max_retries=1, timeout=10)
        celery = WorkersRunLauncher.of(Settings(broker=url)).celery
        with celery.connection() as connection, pytest.raises(Exception, match="certificate verify failed"):
            connection.ensure_connection(max_retries=1, timeout=10)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rediss://:p@h/0", ssl.CERT_REQUIRED),
        ("rediss://:p@h/0?ssl_ca_certs=/ca.crt", ssl.CERT_REQUIRED),
        ("rediss://:p@h/0?ssl_cert_reqs=none", ssl.CERT_NONE),
    ],
)
def test_a_broker_is_verified_unless_its_url_says_otherwise(url, expected):
    """Celery refuses a `rediss://` URL that does not mention it; broker and results are opened alike."""
    celery = WorkersRunLauncher.of(Settings(broker=url)).celery
    assert celery.backend.connparams["ssl_cert_reqs"] == expected
    with celery.connection() as connection:
        assert connection.ssl["ssl_cert_reqs"] == expected


@pytest.mark.skipif(os.name == "nt", reason="the server is Debian's")
def test_a_postgres_budget_verifies_the_servers_certificate_when_asked(files):
    """With `sslmode=verify-full`; without it the server's certificate is not looked at, as libpq has it."""
    cert, key, other = files
    with postgres_server() as url:
        turned_on = subprocess.run(
            [program("psql"), url, "-c", "ALTER SYSTEM SET ssl = on", "-c", "SHOW data_directory", "-At"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        data = Path(turned_on.stdout.split()[-1])
        owner = data.stat()
        for name, source in (("server.crt", cert), ("server.key", key)):
            (data / name).write_bytes(source.read_bytes())
            (data / name).chmod(0o600)
            os.chown(data / name, owner.st_uid, owner.st_gid)
        subprocess.run([program("psql"), url, "-c", "SELECT pg_reload_conf()"], capture_output=True, check=True)
        verified = f"{url}?sslmode=verify-full&sslrootcert="
        assert spent(f"{verified}{cert}") == 1
        postgres_storage(f"{verified}{cert}")
        with pytest.raises(SettingError, match="BACKFILL_LIMITER"):
            open_budget(f"{verified}{other}", key_id="k", per_minute=50)
        with pytest.raises(SettingError, match="BACKFILL_RUN_STORAGE"):
            check_postgres(Settings(run_storage=f"{verified}{other}"))
