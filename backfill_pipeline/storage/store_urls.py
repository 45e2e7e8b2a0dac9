"""URLs of stores: a folder or a bucket.

Put here: which store a URL names, and how it is opened. Keep out: which URL the settings name (`days.py`).
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from backfill_pipeline.errors import SettingError
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline.storage.store import Store


def open_store(
    url: str,
    *,
    access_key: str | None = None,
    secret: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    region: str | None = None,
) -> Store:
    """Open the store that a URL names.

    Args:
        url: a folder, `file:///folder`, or `s3://bucket[/prefix]`.
        access_key: the bucket's access key; None: the usual AWS chain.
        secret: its secret.
        token: its session token, when it is a temporary one.
        endpoint: the bucket's endpoint; AWS's own when None.
        region: the bucket's region; `auto` for R2.

    Raises:
        SettingError: the URL names neither a folder nor a bucket.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from backfill_pipeline.storage.s3 import S3Store  # noqa: PLC0415 - boto3 takes long to import

        return S3Store(
            parts.netloc,
            parts.path.strip("/"),
            access_key=access_key,
            secret=secret,
            token=token,
            endpoint=endpoint,
            region=region,
        )
    if "://" not in url:
        return LocalStore(Path(url))
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        path = unquote(parts.path)
        return LocalStore(Path(path[1:] if path[2:3] == ":" else path))  # file:///C:/folder
    raise SettingError(
        f"BACKFILL_STORE is {url!r}, which is not a folder or a bucket",
        hint="set it to a folder, file:///folder, or s3://bucket[/prefix]",
    )
