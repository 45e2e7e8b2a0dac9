"""Objects in a bucket: S3, or what speaks its protocol, such as Cloudflare R2.

Put here: requests to a bucket, and what its errors mean. Keep out: what an object holds.

boto3 comes with dagster-aws; it takes the usual AWS chain of credentials and names every error. A day's object is a few
megabytes, far below the 5 GB of a single PUT, which becomes visible whole or not at all and leaves no parts behind.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from backfill_pipeline.errors import StoreBusyError, StoreRefusedError
from backfill_pipeline.storage.store import Stat

_REFUSED = {
    "NoSuchBucket": "there is no such bucket; check BACKFILL_STORE and AWS_ENDPOINT_URL_S3",
    "AccessDenied": "no permission; check the key's rights to read and write this bucket",
    "403": "no permission; check the key's rights to read and write this bucket",
    "InvalidAccessKeyId": "the store does not know this access key; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret does not fit the access key; check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it, then try again",
    "ExpiredToken": "the credentials have expired; renew them",
    "PermanentRedirect": "the bucket lies in another region; check AWS_REGION and AWS_ENDPOINT_URL_S3",
    "AuthorizationHeaderMalformed": "the region does not fit; check AWS_REGION (`auto` for R2)",
}
_BUSY = {"SlowDown", "503", "500", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "502", "504"}


class S3Store:
    """A bucket, or a prefix in one.

    Args:
        bucket: its name.
        prefix: put before every key; may be empty.
        access_key: None: the usual AWS chain.
        secret: belongs to `access_key`.
        endpoint: None: AWS's own.
        region: `auto` for R2.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        access_key: str | None = None,
        secret: str | None = None,
        endpoint: str | None = None,
        region: str | None = None,
    ) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self._client: Any = boto3.client(
            "s3",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret,
            endpoint_url=endpoint,
            region_name=region or ("auto" if endpoint and "r2.cloudflarestorage" in endpoint else None),
            # One owner of retries towards the store; R2 takes a checksum only where an operation names one.
            config=Config(
                retries={"mode": "standard", "max_attempts": 5},
                connect_timeout=10,
                read_timeout=60,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def put(self, key: str, file: Path, sha256: str) -> None:
        """Store `file` in one request, its hash kept beside it."""
        with self._told(f"cannot store {self.url(key)}"), file.open("rb") as body:
            self._client.put_object(
                Bucket=self.bucket,
                Key=self.prefix + key,
                Body=body,
                ContentType="application/vnd.apache.parquet",
                Metadata={"sha256": sha256},
            )

    def head(self, key: str) -> Stat | None:
        """Size and the hash that was kept beside the object."""
        with self._told(f"cannot read {self.url(key)}"):
            try:
                answer = self._client.head_object(Bucket=self.bucket, Key=self.prefix + key)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey", "NotFound"):
                    self._client.head_bucket(Bucket=self.bucket)  # a bucket that is not there is no missing object
                    return None
                raise
        return Stat(key, answer["ContentLength"], answer.get("Metadata", {}).get("sha256"))

    def open(self, key: str) -> IO[bytes]:
        """The object, fetched whole."""
        with self._told(f"cannot read {self.url(key)}"):
            file: IO[bytes] = SpooledTemporaryFile(max_size=64 << 20)  # noqa: SIM115 - the caller closes it
            try:
                answer = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key)
            except self._client.exceptions.NoSuchKey:
                raise FileNotFoundError(key) from None
            for part in answer["Body"].iter_chunks(1 << 20):
                file.write(part)
        file.seek(0)
        return file

    def list(self, prefix: str) -> Iterator[Stat]:
        """All objects whose key begins with `prefix`."""
        with self._told(f"cannot list {self.url(prefix)}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
            for page in pages:
                for item in page.get("Contents", []):
                    yield Stat(item["Key"][len(self.prefix) :], item["Size"])

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""
        with self._told(f"cannot remove {self.url(key)}"):
            self._client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    def url(self, key: str) -> str:
        """The object as `s3://bucket/key`."""
        return f"s3://{self.bucket}/{self.prefix}{key}"

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code == "404":
                code = "NoSuchBucket"
            if code in _BUSY:
                raise StoreBusyError(f"{what}: the store is busy ({code})") from error
            raise StoreRefusedError(f"{what}: {_REFUSED.get(code, f'refused ({code})')}") from error
        except BotoCoreError as error:
            kind = type(error).__name__
            if "Credentials" in kind:
                raise StoreRefusedError(
                    f"{what}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                ) from error
            if kind in ("EndpointConnectionError", "InvalidEndpointDiscoveryConfigurationError"):
                raise StoreRefusedError(
                    f"{what}: no such endpoint, or no network; check AWS_ENDPOINT_URL_S3"
                ) from error
            raise StoreBusyError(f"{what}: the transfer failed ({kind})") from error
