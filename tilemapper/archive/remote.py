"""Object stores and web servers: what is there, and its version. boto3 for s3, urllib for https.

Credentials come from the environment alone, the way GDAL and boto3 read it; both are pointed at
the same endpoint. No message names a user, a password or a query.
"""

from __future__ import annotations

import base64
import importlib
import os
import string
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tilemapper.archive.answers import code_of, has_expired, is_passing
from tilemapper.errors import JobError, TilemapperError, TryAgainError
from tilemapper.raster.secrets import public

SCHEMES = ("s3://", "https://", "http://")
TIMEOUT_S = 30
ASKED_AT_ONCE = 16  # most of the time is waiting
ASKED_AGAIN_AFTER_S = (1.0, 2.0)  # as often as boto3 and GDAL, about
MAX_DOCUMENT_BYTES = 512 * 2**20
# Of a HEAD: not known, or not what an address is signed for, as those of S3 are for reading alone.
NO_HEAD = (403, 405, 501)


@dataclass(frozen=True, slots=True)
class Entry:
    """An object on a server. ``etag`` or, where a server has none, its time of change."""

    url: str
    size_bytes: int | None
    etag: str | None


def is_remote(path: str) -> bool:
    """Whether a path names something on a server."""
    return path.startswith(SCHEMES)


def quoted(url: str) -> str:
    """An address as servers take it: what stands in it as it is read, such as a space, quoted.

    A key in a store is taken as it is.
    """
    return url if url.startswith("s3://") else quote(url, safe=string.punctuation)


@cache
def s3_client() -> Any:
    """A boto3 client for the endpoint that GDAL uses too.

    Raises:
        JobError: boto3 is not installed.
    """
    try:
        boto3 = importlib.import_module("boto3")
        botocore = importlib.import_module("botocore")
        config_of = importlib.import_module("botocore.config").Config
    except ImportError as error:
        raise JobError(
            "s3://: boto3 is needed and not installed; run pip install 'tilemapper[archive]'"
        ) from error
    endpoint = os.environ.get("AWS_S3_ENDPOINT")
    if endpoint and "://" not in endpoint:
        secure = os.environ.get("AWS_HTTPS", "YES").upper() != "NO"
        endpoint = f"{'https' if secure else 'http'}://{endpoint}"
    unsigned = os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() == "YES"
    style = "path" if os.environ.get("AWS_VIRTUAL_HOSTING", "").upper() == "FALSE" else "auto"
    options: dict[str, Any] = {"retries": {"max_attempts": 5, "mode": "standard"}}
    if unsigned:
        options["signature_version"] = botocore.UNSIGNED
    config = config_of(
        connect_timeout=10, read_timeout=60, s3={"addressing_style": style}, **options
    )
    return boto3.client("s3", endpoint_url=endpoint or None, config=config)


def server_of(path: str) -> str | None:
    """What answers for an address, a host or a bucket; None of what lies on no server."""
    scheme, separator, rest = path.partition("://")
    return f"{scheme}://{rest.partition('/')[0].rpartition('@')[2]}" if separator else None


def trouble(path: str) -> str | None:
    """What a server says that cannot give an object for now, if a path names one; None else.

    It is asked for a byte: some answer what they are asked about objects, and give none. Nor does
    one give any until credentials that have expired are renewed.
    """
    if not is_remote(path):
        return None
    try:
        if path.startswith("s3://"):
            bucket, key = bucket_and_key(path)
            s3_client().get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].read()
        else:
            with urllib.request.urlopen(_for_first_byte(path), timeout=TIMEOUT_S) as answer:
                answer.read(1)
    except TilemapperError:
        return None
    except Exception as error:
        failed = _failed(path, error, "is not given")
        later = isinstance(failed, TryAgainError) or has_expired(error)
        return str(failed) if later else None
    return None


def bucket_and_key(url: str) -> tuple[str, str]:
    """``s3://bucket/some/key`` as its two parts."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def _failed(url: str, error: Exception, what: str) -> JobError | TryAgainError:
    line = f"{public(url)}: {what} ({code_of(error)}); "
    if is_passing(error):
        return TryAgainError(line + "try again later")
    return JobError(line + "check the address, rights and credentials")


def _request(url: str, method: str) -> urllib.request.Request:
    """A request; user and password of the address go into its header, as GDAL does it."""
    parts = urlsplit(quoted(url))
    user, separator, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl(), method=method)
    if separator:
        token = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def entry(url: str) -> Entry:
    """Size and version of one object, from its head.

    Raises:
        JobError: the server refuses. TryAgainError: it does not answer.
    """
    try:
        if url.startswith("s3://"):
            bucket, key = bucket_and_key(url)
            head = s3_client().head_object(Bucket=bucket, Key=key)
            return Entry(url, head["ContentLength"], head["ETag"].strip('"'))
        with _looked_at(url) as answer:
            _, _, whole = answer.headers.get("Content-Range", "").partition("/")
            size = whole or answer.headers.get("Content-Length")
            version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            known = size is not None and size.isdecimal()
            return Entry(url, int(size) if known else None, version and version.strip('"'))
    except TilemapperError:
        raise
    except Exception as error:
        raise _failed(url, error, "cannot be looked at") from None


def _looked_at(url: str) -> Any:
    """A server's answer that says of an object how large it is, and its version."""
    try:
        return _patiently(_request(url, "HEAD"))
    except urllib.error.HTTPError as refused:
        if refused.code not in NO_HEAD:
            raise
    return _patiently(_for_first_byte(url))


def _for_first_byte(url: str) -> urllib.request.Request:
    first = _request(url, "GET")
    first.add_header("Range", "bytes=0-0")
    return first


def _patiently(request: urllib.request.Request) -> Any:
    """A server's answer; it is asked again if it is in trouble, not if it lets one wait."""
    for wait_s in ASKED_AGAIN_AFTER_S:
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except Exception as error:
            if isinstance(error, TimeoutError) or not is_passing(error):
                raise
            time.sleep(wait_s)
    return urllib.request.urlopen(request, timeout=TIMEOUT_S)


def fetch(url: str) -> bytes:
    """A small document (a list or a catalog), whole.

    Raises:
        JobError: it cannot be had, or is larger than 512 MiB.
        TryAgainError: the server does not answer.
    """
    try:
        if url.startswith("s3://"):
            bucket, key = bucket_and_key(url)
            body = s3_client().get_object(Bucket=bucket, Key=key)["Body"]
            data: bytes = body.read(MAX_DOCUMENT_BYTES + 1)
        else:
            with _patiently(_request(url, "GET")) as answer:
                data = answer.read(MAX_DOCUMENT_BYTES + 1)
    except TilemapperError:
        raise
    except Exception as error:
        raise _failed(url, error, "cannot be fetched") from None
    if len(data) > MAX_DOCUMENT_BYTES:
        raise JobError(f"{public(url)}: is larger than 512 MiB; split the list")
    return data


def listed(prefix: str) -> Iterator[Entry]:
    """All objects under an ``s3://`` prefix.

    Raises:
        JobError: it cannot be listed. TryAgainError: the store does not answer.
    """
    bucket, key = bucket_and_key(prefix)
    try:
        pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        for page in pages:
            for item in page.get("Contents", ()):
                yield Entry(f"s3://{bucket}/{item['Key']}", item["Size"], item["ETag"].strip('"'))
    except TilemapperError:
        raise
    except Exception as error:
        raise _failed(prefix, error, "cannot be listed") from None
