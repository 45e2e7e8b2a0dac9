"""Access to a bucket, as botocore resolved it, in the words of polars, DuckDB and pyiceberg.

Readers then use what the writer uses: one address, one set of credentials, one proxy, one file of CA certificates.

Put here: names of the readers' options. Keep out: how access is resolved, and requests (`s3.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

_NO_PROXY = "http://proxy.invalid"
"""An address that is never requested: polars takes a CA certificate, and no proxy at all, only beside a proxy's URL."""


@dataclass(frozen=True, slots=True)
class BucketAccess:
    """How to reach a bucket.

    Attributes:
        bucket: its name.
        endpoint: the URL that requests are sent to.
        region: None where only AWS itself knows it.
        access_key: None without credentials.
        secret: belongs to `access_key`.
        token: belongs to `access_key` when that is a temporary one.
        virtual: whether the bucket's name is part of the host name.
        proxy: URL of the proxy; None for a direct connection.
        ca_file: file of CA certificates in PEM format; None for the usual ones.
    """

    bucket: str
    endpoint: str
    region: str | None = None
    access_key: str | None = None
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    virtual: bool = False
    proxy: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @property
    def is_aws(self) -> bool:
        """Whether the endpoint is AWS's own."""
        return (urlsplit(self.endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))

    def polars_options(self) -> dict[str, str]:
        """`storage_options` of polars; they contain the secret."""
        parts = urlsplit(self.endpoint)
        place = f"{parts.scheme}://{self.bucket}.{parts.netloc}" if self.virtual else self.endpoint
        options: Mapping[str, str | None] = {
            "aws_endpoint_url": None if self.is_aws and self.region is None else place,
            "aws_virtual_hosted_style_request": "true" if self.virtual else None,
            "aws_allow_http": "true" if parts.scheme == "http" else None,
            "aws_region": self.region,
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret,
            "aws_session_token": self.token,
            "proxy_url": self.proxy or _NO_PROXY,
            "proxy_excludes": None if self.proxy else "amazonaws.com" if self.is_aws else parts.hostname,
            "proxy_ca_certificate": self.ca_file.read_text(encoding="utf-8") if self.ca_file else None,
        }
        return {name: value for name, value in options.items() if value}

    def iceberg_properties(self) -> dict[str, str]:
        """Properties of pyiceberg's FileIO; they contain the secret. It has no property for a file of certificates."""
        properties: Mapping[str, str | None] = {
            "s3.endpoint": None if self.is_aws and self.region is None else self.endpoint,
            "s3.force-virtual-addressing": "true" if self.virtual else "false",
            "s3.region": self.region,
            "s3.access-key-id": self.access_key,
            "s3.secret-access-key": self.secret,
            "s3.session-token": self.token,
            "s3.proxy-uri": self.proxy,
        }
        return {name: value for name, value in properties.items() if value}

    def duckdb_statements(self, scope: str) -> tuple[str, ...]:
        """Statements that let DuckDB read the bucket; they contain the secret.

        Args:
            scope: the URL that the secret is for.
        """
        parts = urlsplit(self.endpoint)
        fields = {
            "KEY_ID": self.access_key,
            "SECRET": self.secret,
            "SESSION_TOKEN": self.token,
            "REGION": self.region,
            "ENDPOINT": None if self.is_aws and self.region is None else parts.netloc,
            "URL_STYLE": "vhost" if self.virtual else "path",
            "SCOPE": scope,
        }
        named = [f"{name} {_quoted(value)}" for name, value in fields.items() if value]
        use_ssl = "true" if parts.scheme == "https" else "false"
        secret = f"CREATE OR REPLACE SECRET backfill_store (TYPE s3, {', '.join(named)}, USE_SSL {use_ssl})"
        proxy = urlsplit(self.proxy or "")
        settings = {
            "http_proxy": proxy.netloc.rpartition("@")[2],
            "http_proxy_username": unquote(proxy.username or ""),
            "http_proxy_password": unquote(proxy.password or ""),
        }
        if self.ca_file:
            settings |= {"ca_cert_file": self.ca_file.as_posix(), "enable_server_cert_verification": "true"}
        # The extension is downloaded with DuckDB's own settings: the proxy may be for the bucket alone.
        sets = [f"SET {name} = {_quoted(value)}" for name, value in settings.items()]
        return ("INSTALL httpfs", "LOAD httpfs", *sets, secret)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
