"""Objects in a bucket: S3, or what speaks its protocol, such as Cloudflare R2 or Backblaze B2.

Put here: requests to a bucket. Keep out: what its errors mean (`s3_errors.py`), and what an object holds.

botocore resolves credentials, endpoint, region, proxies and CA certificates from AWS's usual variables and files. An
object is put in one request (`docs/decisions/0004-one-request-a-put.md`).
"""

import base64
import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from botocore.httpsession import ProxyConfiguration
from botocore.utils import get_environ_proxies

from backfill_pipeline.errors import SettingError
from backfill_pipeline.settings import requests_ca_bundle
from backfill_pipeline.storage.bucket_access import BucketAccess
from backfill_pipeline.storage.s3_errors import (
    BROKEN,
    DENIED,
    UNDERSTOOD,
    Right,
    code_of,
    is_known,
    status_of,
    store_error,
)
from backfill_pipeline.storage.store import Stat, Versioned

_CHANGED = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409"}
"""What a conditional put is answered with when another writer was faster, or has deleted the object."""
_UNCONDITIONAL = {"NotImplemented", "501"}
"""What a store answers that does not know conditional puts."""
_PARQUET = "application/vnd.apache.parquet"
_CUT = (IncompleteReadError, ResponseStreamingError, HTTPClientError)
"""What a cut connection looks like while an object is being read: botocore tries only requests again."""

_PROOFS = ("sha256", "md5", "none")
"""How a put names the hash of its body, the best first: a store may refuse a header that it does not know."""

_UNKNOWN_HEADER = (400, 501)
"""HTTP statuses with which stores refuse a header that they do not know."""

_taken: dict[str, int] = {}
"""By endpoint: the first of `_PROOFS` that the store accepted in this process."""


class S3Store:
    """A bucket, or a prefix in one.

    Args:
        bucket: its name.
        prefix: put before every key; may be empty.
        access_key: None: the usual AWS chain.
        secret: belongs to `access_key`.
        token: belongs to `access_key` when that is a temporary one.
        endpoint: None: AWS's own.
        region: `auto` for R2.
        tries: how often a request is tried: the one owner of retries towards the store.
        timeout_s: seconds without a byte until a try has failed.

    Raises:
        SettingError: the AWS variables or files that the usual chain reads are wrong.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        access_key: str | None = None,
        secret: str | None = None,
        token: str | None = None,
        endpoint: str | None = None,
        region: str | None = None,
        tries: int = 5,
        timeout_s: float = 60,
    ) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self._tries = tries
        self._has_answered = False  # then an endpoint that cannot be reached is an outage, not a wrong setting
        self._conditional = True  # until the store says that it does not know conditional puts
        session = botocore.session.Session()
        if bool(access_key) != bool(secret):
            unset = "AWS_SECRET_ACCESS_KEY" if access_key else "AWS_ACCESS_KEY_ID"
            raise SettingError(
                f"{unset} is not set, but the other half of the key pair is", hint="set both, or neither"
            )
        try:
            if access_key:
                session.set_credentials(access_key, secret, token)
            ca = session.get_config_variable("ca_bundle") or requests_ca_bundle()
            if ca and not Path(ca).is_file():
                raise SettingError(
                    f"AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE holds {str(ca)!r}, which is not a file",
                    hint="name a file of CA certificates in PEM format",
                )
            self._client: Any = session.create_client(
                "s3",
                endpoint_url=endpoint,
                region_name=region or ("auto" if endpoint and "r2.cloudflarestorage" in endpoint else None),
                verify=ca or True,  # None: botocore takes an empty REQUESTS_CA_BUNDLE for a file name
                config=Config(
                    retries={"mode": "standard", "total_max_attempts": tries},
                    connect_timeout=min(10, timeout_s),
                    read_timeout=timeout_s,
                    max_pool_connections=32,
                    # The usual checksums are trailers, which R2 refuses; put() gives one as a header, which it takes.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        except (BotoCoreError, ValueError) as error:  # a profile that does not exist, a URL that is not valid
            raise SettingError(f"cannot open {self.url('')}: {' '.join(str(error).split())[:200]}") from None
        # botocore answers a redirect by HEAD of the bucket, and a redirect of that one by another, without end.
        self._client.meta.events.register("before-call.s3.HeadBucket", _redirect_once)
        self._session, self._ca = session, Path(ca) if ca else None
        self._endpoint: str = self._client.meta.endpoint_url

    def put(self, key: str, data: bytes, sha256: str) -> Stat:
        """Store `data` in one request, which the store refuses unless what arrives has this hash.

        A store that refuses the header with the hash gets the same request with `Content-MD5`, then without either.
        """
        with self._told(f"cannot store {self.url(key)}", "write"):
            first = _taken.get(self._endpoint, 0)
            for proof in range(first, len(_PROOFS)):
                try:
                    answer = self._put(key, data, sha256, _PROOFS[proof])
                except ClientError as error:
                    if proof + 1 == len(_PROOFS) or status_of(error) not in _UNKNOWN_HEADER or is_known(code_of(error)):
                        raise
                else:
                    _taken[self._endpoint] = proof
                    return Stat(key, len(data), _made(answer), _etag(answer), sha256)
        raise AssertionError("the loop above returns or raises")  # pragma: no cover

    def _put(self, key: str, data: bytes, sha256: str, proof: str) -> Mapping[str, Any]:
        named = {}
        if proof == "sha256":
            named = {"ChecksumSHA256": base64.b64encode(bytes.fromhex(sha256)).decode()}
        elif proof == "md5":
            named = {"ContentMD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()}
        for left in reversed(range(self._tries)):
            try:
                answer: Mapping[str, Any] = self._client.put_object(
                    Bucket=self.bucket,
                    Key=self.prefix + key,
                    Body=data,
                    ContentType=_PARQUET,
                    Metadata={"sha256": sha256},
                    **named,
                )
            except ClientError as error:
                # Damaged on the way: the one passing fault of a put that botocore does not try again.
                if not left or code_of(error) not in BROKEN:
                    raise
            else:
                return answer
        raise AssertionError("the loop above returns or raises")  # pragma: no cover

    def head(self, key: str) -> Stat | None:
        """Size, ETag, the hash that the store computed, and the one that the writer named."""
        place = {"Bucket": self.bucket, "Key": self.prefix + key}
        mode = {} if _taken.get(self._endpoint) else {"ChecksumMode": "ENABLED"}
        with self._told(f"cannot read {self.url(key)}", "read"):
            for left in reversed(range(self._tries)):
                try:
                    answer = self._client.head_object(**place, **mode)
                    break
                except ClientError as error:
                    # An answer to HEAD has no body to name the error; what it says to GET has.
                    if self._is_missing(place):
                        return None
                    if not left or (code_of(error) != "404" and not (mode and status_of(error) in _UNKNOWN_HEADER)):
                        raise
                    # 404: another writer put it there between the two requests. Else: the store refuses the header.
                    mode = mode if code_of(error) == "404" else {}
        # Some stores capitalise the names of metadata.
        kept = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        return Stat(key, answer["ContentLength"], _made(answer), _etag(answer), kept.get("sha256"))

    def _is_missing(self, place: dict[str, str]) -> bool:
        for left in reversed(range(self._tries)):
            try:
                self._client.get_object(**place, Range="bytes=0-0")["Body"].close()
                break
            except self._client.exceptions.NoSuchKey:
                return True
            except ClientError as error:
                if not left or code_of(error) != "404":
                    raise
                # Its name was cut off on the way: request it again.
        return False

    def get(self, key: str, last: int | None = None) -> bytes:
        """The object, or its last bytes; tried again when the connection is cut on the way."""
        part = {} if last is None else {"Range": f"bytes=-{last}"}
        with self._told(f"cannot read {self.url(key)}", "read"):
            for left in reversed(range(self._tries)):
                try:
                    answer = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key, **part)
                    body: bytes = answer["Body"].read()
                except self._client.exceptions.NoSuchKey:
                    raise FileNotFoundError(f"{self.url(key)} is not there") from None
                except ClientError as error:
                    if code_of(error) == "InvalidRange":  # the last bytes of an object that has none
                        return b""
                    raise
                except EndpointConnectionError:
                    raise
                except _CUT:
                    if not left:
                        raise
                else:
                    return body
        raise AssertionError("the loop above returns or raises")  # pragma: no cover

    def read(self, key: str) -> Versioned | None:
        """The object, and its ETag as its version."""
        with self._told(f"cannot read {self.url(key)}", "read"):
            for left in reversed(range(self._tries)):
                try:
                    answer = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key)
                    return Versioned(answer["Body"].read(), answer["ETag"])
                except self._client.exceptions.NoSuchKey:
                    return None
                except EndpointConnectionError:
                    raise
                except _CUT:
                    if not left:
                        raise
        raise AssertionError("the loop above returns or raises")  # pragma: no cover

    def replace(self, key: str, data: bytes, version: str | None) -> bool:
        """Store the object by a conditional request: `If-Match` its ETag, or `If-None-Match: *`.

        A store that does not know conditional requests refuses, or ignores the condition. The first is stored
        without a condition; `storage.shared_object` reads back what is there afterwards, and finds out.
        """
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        place = {"Bucket": self.bucket, "Key": self.prefix + key, "Body": data}
        with self._told(f"cannot store {self.url(key)}", "write"):
            try:
                self._client.put_object(**place, ContentType=_PARQUET, **(condition if self._conditional else {}))
            except ClientError as error:
                if code_of(error) in _CHANGED:
                    return False
                is_condition = status_of(error) in _UNKNOWN_HEADER and not is_known(code_of(error))
                if code_of(error) not in _UNCONDITIONAL and not is_condition:
                    raise
                self._client.put_object(**place, ContentType=_PARQUET)
                self._conditional = False
            return True

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        """Objects whose key begins with `prefix` and is greater than `after`: a request for each 1,000 of them."""
        place = {"Bucket": self.bucket, "Prefix": self.prefix + prefix}
        if after:
            place["StartAfter"] = self.prefix + after
        with self._told(f"cannot list {self.url(prefix)}", "list"):
            for page in self._client.get_paginator("list_objects_v2").paginate(**place):
                for item in page.get("Contents", []):
                    key = item["Key"][len(self.prefix) :]
                    if key > after:  # a store that does not know StartAfter lists from the beginning
                        yield Stat(key, item["Size"], etag=_etag(item))

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""
        with self._told(f"cannot remove {self.url(key)}", "delete"):
            self._client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    def url(self, key: str) -> str:
        """The object as `s3://bucket/key`."""
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def reader_options(self) -> dict[str, str]:
        """`storage_options` of polars: the same access as this store's own."""
        return self._access().polars_options()

    def duckdb_statements(self) -> tuple[str, ...]:
        """Statements that let DuckDB read this store: the same access as this store's own."""
        return self._access().duckdb_statements(self.url(""))

    def _access(self) -> BucketAccess:
        with self._told(f"cannot read {self.url('')}", "read"):
            found = self._session.get_credentials()
            keys = found.get_frozen_credentials() if found else None
        endpoint, region = self._endpoint, self._client.meta.region_name
        access = BucketAccess(
            self.bucket,
            endpoint,
            None if region == "aws-global" else region,
            keys.access_key if keys else None,
            keys.secret_key if keys else None,
            keys.token if keys else None,
            virtual=(self._client.meta.config.s3 or {}).get("addressing_style") == "virtual",
            proxy=ProxyConfiguration(get_environ_proxies(endpoint)).proxy_url_for(endpoint),
            ca_file=self._ca,
        )
        return access if access.is_aws or access.region else replace(access, region="us-east-1")

    @contextmanager
    def _told(self, what: str, right: Right) -> Iterator[None]:
        try:
            yield
            self._has_answered = True
        except UNDERSTOOD as error:
            if right == "read" and isinstance(error, ClientError) and code_of(error) in DENIED and self._may_not_list():
                right = "list"
            raise store_error(
                error,
                what,
                endpoint=self._endpoint,
                right=right,
                secrets=self._secrets(),
                has_answered=self._has_answered,
            ) from error

    def _may_not_list(self) -> bool:
        """Whether listing is refused: without this right, S3 answers 403 for each object that is absent."""
        try:
            self._client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)
        except ClientError as error:
            return code_of(error) in DENIED
        except UNDERSTOOD:
            pass
        return False

    def _secrets(self) -> Collection[str]:
        """What no message may show: the credentials that requests were signed with."""
        try:
            found = self._session.get_credentials()
            keys = found.get_frozen_credentials() if found else None
        except BotoCoreError:
            keys = None
        return [text for text in (keys.secret_key, keys.token, keys.access_key) if text] if keys else []


def _redirect_once(params: dict[str, Any], **_: object) -> None:
    """Mark a request as redirected already, so that botocore does not follow a further redirect of it."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _made(answer: Mapping[str, Any]) -> str | None:
    """The SHA-256 that the store computed, in hexadecimal digits."""
    made = answer.get("ChecksumSHA256")
    return base64.b64decode(made).hex() if made else None


def _etag(answer: Mapping[str, Any]) -> str | None:
    """The ETag without its quotes."""
    return str(answer.get("ETag") or "").strip('"') or None
