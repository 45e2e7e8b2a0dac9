"""Objects in a bucket: S3, or what speaks its protocol, such as Cloudflare R2.

Put here: requests to a bucket, and what its errors mean. Keep out: what an object holds.

boto3 comes with dagster-aws; it takes the usual AWS chain of credentials and names every error. An object is put in one
request (`docs/decisions/0004-one-request-a-put.md`).
"""

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ResponseStreamingError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from backfill_pipeline.errors import SettingError, StoreBusyError, StoreRefusedError
from backfill_pipeline.storage.store import Stat, Versioned

_RIGHTS = "no permission; check the key's rights to list, read and write this bucket"
_EXPIRED = "the credentials have expired; renew them"
_REFUSED = {
    "NoSuchBucket": "there is no such bucket; check BACKFILL_STORE and AWS_ENDPOINT_URL_S3",
    "InvalidBucketName": "no bucket can have this name; check BACKFILL_STORE",
    "AccessDenied": _RIGHTS,
    "AllAccessDisabled": _RIGHTS,
    "Unauthorized": "the store does not accept the credentials; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "InvalidAccessKeyId": "the store does not know this access key; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret does not fit the access key; check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it, then try again",
    "RequestExpired": "this machine's clock is wrong; set it, then try again",
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": "the session token is wrong; check AWS_SESSION_TOKEN",
    "PermanentRedirect": "the bucket lies in another region; check AWS_REGION and AWS_ENDPOINT_URL_S3",
    "AuthorizationHeaderMalformed": "the region does not fit; check AWS_REGION (`auto` for R2)",
    "InvalidRegionName": "the region does not fit; check AWS_REGION (`auto` for R2)",
    "QuotaExceeded": "the store is full; free some room",
    "XMinioStorageFull": "the store is full; free some room",
}
_THROTTLED = {"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "429"}
_BUSY = {"500", "502", "503", "504", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted"}
_BROKEN = {"BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "XAmzContentChecksumMismatch"}
_CHANGED = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409"}
"""What a conditional put is answered with when another writer was faster, or has deleted the object."""
_UNCONDITIONAL = {"NotImplemented", "501"}
"""What a store answers that does not know conditional puts."""
_PARQUET = "application/vnd.apache.parquet"
_CUT = (IncompleteReadError, ResponseStreamingError, HTTPClientError)
"""What a cut connection looks like while an object is being read: botocore tries only requests again."""


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
        self._conditional = True  # until the store says that it does not know conditional puts
        self._given = {"access_key": access_key, "secret": secret, "token": token, "endpoint": endpoint}
        try:
            self._client: Any = boto3.session.Session().client(
                "s3",
                aws_access_key_id=access_key,
                aws_secret_access_key=secret,
                aws_session_token=token if access_key else None,
                endpoint_url=endpoint,
                region_name=region or ("auto" if endpoint and "r2.cloudflarestorage" in endpoint else None),
                config=Config(
                    retries={"mode": "standard", "total_max_attempts": tries},
                    connect_timeout=min(10, timeout_s),
                    read_timeout=timeout_s,
                    max_pool_connections=32,
                    # boto3's own checksums are trailers, which R2 refuses; put() gives one as a header, which it takes.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    # Every server knows the bucket in the path; in the host's name only those with a wildcard name do.
                    s3={"addressing_style": "path"} if endpoint else None,
                ),
            )
        except (BotoCoreError, ValueError) as error:  # a profile that is not there, a URL that is none
            raise SettingError(f"cannot open {self.url('')}: {' '.join(str(error).split())[:200]}") from None

    def put(self, key: str, data: bytes, sha256: str) -> Stat:
        """Store `data` in one request, which the store refuses unless what arrives has this hash."""
        with self._told(f"cannot store {self.url(key)}"):
            for left in reversed(range(self._tries)):
                try:
                    answer = self._client.put_object(
                        Bucket=self.bucket,
                        Key=self.prefix + key,
                        Body=data,
                        ContentType=_PARQUET,
                        ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
                        Metadata={"sha256": sha256},
                    )
                    return Stat(key, len(data), sha256, _etag(answer))
                except ClientError as error:
                    # Damaged on the way: the one passing fault of a put that botocore does not try again.
                    if not left or _code(error) not in _BROKEN:
                        raise
        raise AssertionError("the loop above returns or raises")  # pragma: no cover

    def head(self, key: str) -> Stat | None:
        """Size, and the hash that the store itself made; of a store that tells none, the one kept beside the object."""
        place = {"Bucket": self.bucket, "Key": self.prefix + key}
        with self._told(f"cannot read {self.url(key)}"):
            for left in reversed(range(self._tries)):
                try:
                    answer = self._client.head_object(**place, ChecksumMode="ENABLED")
                    break
                except ClientError as error:
                    # An answer to HEAD has no body to name the error; what it says to GET has.
                    if self._is_missing(place):
                        return None
                    if not left or _code(error) != "404":
                        raise
                    # Another writer put it there between the two questions: ask again.
        made = answer.get("ChecksumSHA256")
        kept = answer.get("Metadata", {}).get("sha256")
        return Stat(key, answer["ContentLength"], base64.b64decode(made).hex() if made else kept, _etag(answer))

    def _is_missing(self, place: dict[str, str]) -> bool:
        for left in reversed(range(self._tries)):
            try:
                self._client.get_object(**place, Range="bytes=0-0")["Body"].close()
                break
            except self._client.exceptions.NoSuchKey:
                return True
            except ClientError as error:
                if not left or _code(error) != "404":
                    raise
                # Its name was cut off on the way: ask again.
        return False

    def get(self, key: str, last: int | None = None) -> bytes:
        """The object, or its last bytes; tried again when the connection is cut on the way."""
        part = {} if last is None else {"Range": f"bytes=-{last}"}
        with self._told(f"cannot read {self.url(key)}"):
            for left in reversed(range(self._tries)):
                try:
                    answer = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key, **part)
                    body: bytes = answer["Body"].read()
                except self._client.exceptions.NoSuchKey:
                    raise FileNotFoundError(f"{self.url(key)} is not there") from None
                except ClientError as error:
                    if _code(error) == "InvalidRange":  # the last bytes of an object that has none
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
        with self._told(f"cannot read {self.url(key)}"):
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

        A store that does not know conditional requests answers 501, or ignores the condition. The first is stored
        without a condition; `storage.shared_object` reads back what is there afterwards, and finds out.
        """
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        place = {"Bucket": self.bucket, "Key": self.prefix + key, "Body": data}
        with self._told(f"cannot store {self.url(key)}"):
            try:
                self._client.put_object(**place, ContentType=_PARQUET, **(condition if self._conditional else {}))
            except ClientError as error:
                if _code(error) in _CHANGED:
                    return False
                if _code(error) not in _UNCONDITIONAL:
                    raise
                self._conditional = False
                self._client.put_object(**place, ContentType=_PARQUET)
            return True

    def list(self, prefix: str) -> Iterator[Stat]:
        """All objects whose key begins with `prefix`."""
        with self._told(f"cannot list {self.url(prefix)}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
            for page in pages:
                for item in page.get("Contents", []):
                    yield Stat(item["Key"][len(self.prefix) :], item["Size"], etag=_etag(item))

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""
        with self._told(f"cannot remove {self.url(key)}"):
            self._client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    def url(self, key: str) -> str:
        """The object as `s3://bucket/key`."""
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def reader_options(self) -> dict[str, str]:
        """Endpoint and region, and the credentials that this store was given; without these the reader's own chain."""
        endpoint, region = self._given["endpoint"], self._client.meta.region_name
        options = {
            "aws_endpoint_url": endpoint,
            "aws_allow_http": "true" if endpoint and endpoint.startswith("http://") else None,
            "aws_region": region if region != "aws-global" else None,
            "aws_access_key_id": self._given["access_key"],
            "aws_secret_access_key": self._given["secret"],
            "aws_session_token": self._given["token"],
        }
        return {name: value for name, value in options.items() if value}

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        endpoint = self._client.meta.endpoint_url
        try:
            yield
        except ClientError as error:
            code = _code(error)
            if code in _THROTTLED:
                raise StoreBusyError(f"{what}: the store asks to slow down ({code}); start again later") from error
            if code in _BUSY:
                raise StoreBusyError(f"{what}: the store is busy ({code}); start again later") from error
            if code in _BROKEN:
                raise StoreBusyError(f"{what}: it was damaged on the way ({code}); start again") from error
            if code.isdecimal():
                why = f"{endpoint} answers HTTP {code}, but not as S3 does; check AWS_ENDPOINT_URL_S3"
            else:
                why = _REFUSED.get(code, f"refused ({code})")
            raise StoreRefusedError(f"{what}: {why}") from error
        except ResponseParserError as error:
            why = f"{endpoint} answers, but not as S3 does; check AWS_ENDPOINT_URL_S3"
            raise StoreRefusedError(f"{what}: {why}") from error
        except (CredentialRetrievalError, SSOError, TokenRetrievalError) as error:
            why = f"the credentials cannot be had, or have expired ({type(error).__name__}); renew them"
            raise StoreRefusedError(f"{what}: {why}") from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            why = "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            raise StoreRefusedError(f"{what}: {why}") from error
        except (EndpointConnectionError, SSLError) as error:
            why = f"no connection to {endpoint}; check AWS_ENDPOINT_URL_S3 and the network"
            raise StoreRefusedError(f"{what}: {why}") from error
        except ParamValidationError as error:
            raise StoreRefusedError(f"{what}: {_REFUSED['InvalidBucketName']}") from error
        except BotoCoreError as error:
            kind = type(error).__name__
            raise StoreBusyError(f"{what}: the transfer failed ({kind}); start again later") from error


def _etag(answer: Mapping[str, Any]) -> str | None:
    """The ETag without its quotes."""
    return str(answer.get("ETag") or "").strip('"') or None


def _code(error: ClientError) -> str:
    """The error's name; its HTTP status when it has none."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    return str(error.response.get("Error", {}).get("Code") or status)
