"""Objects in a bucket of S3, or of a compatible store such as Cloudflare R2 or Backblaze B2.

Put here: requests to a bucket. Keep out: what its errors mean (`s3_errors.py`), and what an object contains.

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
from backfill_pipeline.storage.s3_listing import parse_objects
from backfill_pipeline.storage.store import Stat, Versioned

_CHANGED = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409"}
"""Error codes of a conditional put when another writer came first, or has deleted the object."""
_UNCONDITIONAL = {"NotImplemented", "501"}
"""Error codes of a store that does not support conditional puts."""
_PARQUET = "application/vnd.apache.parquet"
_CUT = (IncompleteReadError, ResponseStreamingError, HTTPClientError)
"""Exceptions of a cut connection while an object is read, for which botocore does not retry."""

_PROOFS = ("sha256", "md5", "none")
"""How a put sends the hash of its body, the best way first; a store may refuse a header that it does not support."""

_UNKNOWN_HEADER = (400, 501)
"""HTTP statuses of stores that refuse an unsupported header."""

_taken: dict[str, int] = {}
"""By endpoint: the first of `_PROOFS` that the store accepted in this process."""


class S3Store:
    """A bucket, or a prefix in one.

    Args:
        bucket: the name of the bucket.
        prefix: the beginning of every key; may be empty.
        access_key: None: the usual AWS chain.
        secret: the secret of `access_key`.
        token: the session token of a temporary `access_key`.
        endpoint: None: the endpoint of AWS.
        region: `auto` for R2.
        tries: the number of attempts of a request. No other code retries requests to the store.
        timeout_s: seconds without a byte until an attempt fails.

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
        self._has_answered = False  # if so, an unreachable endpoint is an outage, not a wrong setting
        self._conditional = True  # until the store refuses a conditional put
        session = botocore.session.Session()
        if bool(access_key) != bool(secret):
            unset = "AWS_SECRET_ACCESS_KEY" if access_key else "AWS_ACCESS_KEY_ID"
            raise SettingError(
                f"{unset} is not set, but the other half of the access key is", hint="set both, or neither"
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
                verify=ca or True,  # with None, botocore uses an empty REQUESTS_CA_BUNDLE
                config=Config(
                    retries={"mode": "standard", "total_max_attempts": tries},
                    connect_timeout=min(10, timeout_s),
                    read_timeout=timeout_s,
                    max_pool_connections=32,
                    # The default checksums are trailers, which R2 refuses. put() sends a header, which R2 accepts.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        except (BotoCoreError, ValueError) as error:  # a profile that does not exist, a URL that is not valid
            raise SettingError(f"cannot open {self.url('')}: {' '.join(str(error).split())[:200]}") from None
        # botocore follows a redirect with HEAD of the bucket, and a redirect of HEAD with HEAD, without end.
        self._client.meta.events.register("before-call.s3.HeadBucket", _redirect_once)
        self._client.meta.events.register("before-parse.s3.ListObjectsV2", parse_objects)
        self._session, self._ca = session, Path(ca) if ca else None
        self._endpoint: str = self._client.meta.endpoint_url

    def put(self, key: str, data: bytes, sha256: str) -> Stat:
        """Store `data` in one request, which the store refuses if the received bytes have another hash.

        A store that refuses the header with the hash gets the same request with `Content-MD5`, then without either.
        """
        with self._store_errors(f"cannot store {self.url(key)}", "write"):
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
                # Damaged in transit: the one transient fault of a put that botocore does not retry.
                if not left or code_of(error) not in BROKEN:
                    raise
            else:
                return answer
        raise AssertionError("the loop above returns or raises")  # pragma: no cover

    def head(self, key: str) -> Stat | None:
        """Return size, ETag, the hash that the store computed, and the hash in the metadata."""
        place = {"Bucket": self.bucket, "Key": self.prefix + key}
        mode = {} if _taken.get(self._endpoint) else {"ChecksumMode": "ENABLED"}
        with self._store_errors(f"cannot read {self.url(key)}", "read"):
            for left in reversed(range(self._tries)):
                try:
                    answer = self._client.head_object(**place, **mode)
                    break
                except ClientError as error:
                    # An answer to HEAD has no body with the name of the error; an answer to GET has one.
                    if self._is_missing(place):
                        return None
                    if not left or (code_of(error) != "404" and not (mode and status_of(error) in _UNKNOWN_HEADER)):
                        raise
                    # 404: another writer stored it between the two requests. Else: the store refuses the header.
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
                # The name of the error was cut off in transit: request it again.
        return False

    def get(self, key: str, last: int | None = None) -> bytes:
        """Return the object, or its last bytes; retry when the connection is cut."""
        part = {} if last is None else {"Range": f"bytes=-{last}"}
        with self._store_errors(f"cannot read {self.url(key)}", "read"):
            for left in reversed(range(self._tries)):
                try:
                    answer = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key, **part)
                    body: bytes = answer["Body"].read()
                except self._client.exceptions.NoSuchKey:
                    raise FileNotFoundError(f"{self.url(key)} is not there") from None
                except ClientError as error:
                    if code_of(error) == "InvalidRange":  # the last bytes of an empty object
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
        """Return the object, and its ETag as its version."""
        with self._store_errors(f"cannot read {self.url(key)}", "read"):
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

        A store without conditional requests refuses the condition, or ignores it. After a refusal the object is stored
        without a condition. `storage.shared_object` reads the object afterwards, and detects a lost change.
        """
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        place = {"Bucket": self.bucket, "Key": self.prefix + key, "Body": data}
        with self._store_errors(f"cannot store {self.url(key)}", "write"):
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
        """Yield objects whose key begins with `prefix` and is greater than `after`; a request for each 1,000."""
        place = {"Bucket": self.bucket, "Prefix": self.prefix + prefix}
        if after:
            place["StartAfter"] = self.prefix + after
        with self._store_errors(f"cannot list {self.url(prefix)}", "list"):
            for page in self._client.get_paginator("list_objects_v2").paginate(**place):
                for item in page.get("Contents", []):
                    key = item["Key"][len(self.prefix) :]
                    if key > after:  # a store without StartAfter lists from the beginning
                        yield Stat(key, item["Size"], etag=_etag(item))

    def delete(self, key: str) -> None:
        """Delete the object, if it exists."""
        with self._store_errors(f"cannot remove {self.url(key)}", "delete"):
            self._client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    def url(self, key: str) -> str:
        """Return the object as `s3://bucket/key`."""
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def reader_options(self) -> dict[str, str]:
        """Return `storage_options` of polars with the access of this store."""
        return self._access().polars_options()

    def duckdb_statements(self) -> tuple[str, ...]:
        """Return statements that give DuckDB the access of this store."""
        return self._access().duckdb_statements(self.url(""))

    def table_options(self) -> dict[str, str]:
        """Return the access of this store as pyiceberg's properties."""
        return self._access().iceberg_properties()

    def _access(self) -> BucketAccess:
        with self._store_errors(f"cannot read {self.url('')}", "read"):
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
    def _store_errors(self, what: str, right: Right) -> Iterator[None]:
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
        """The credentials of the requests, which no message may contain."""
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
