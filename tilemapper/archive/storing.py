"""Outputs in an object store: under a temporary key first, checked, then copied to their own.

GDAL renders on the local disk; boto3 sends what is finished, since a copy inside the store, which
shows an object whole or not at all, is nothing that rasterio offers.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from tilemapper.archive import remote
from tilemapper.archive.answers import code_of, is_passing
from tilemapper.errors import TargetError, TilemapperError, TryAgainError


def upload(staged: Path, output: str, sha256: str) -> None:
    """Brings a staged file to its store under a temporary key, and checks that it is whole.

    Raises:
        TargetError: the store refuses, or holds something else than was sent.
        TryAgainError: the store does not answer.
    """
    bucket, key = remote.bucket_and_key(_temporary(output, sha256))
    client = remote.s3_client()
    extra = {"Metadata": {"sha256": sha256}, "ContentType": "image/tiff"}
    try:
        client.upload_file(
            str(staged), bucket, key, ExtraArgs=extra | {"ChecksumAlgorithm": "SHA256"}
        )
        head = client.head_object(Bucket=bucket, Key=key)
    except Exception as error:
        raise _refused(output, error) from None
    if head["ContentLength"] != staged.stat().st_size:
        raise TargetError(f"{output}: the store holds another size than was sent; run again")


def check_taken(output: str) -> None:
    """Puts an empty object beside where an output will be, and removes it.

    Raises:
        TargetError, TryAgainError: see `upload`.
    """
    bucket, key = remote.bucket_and_key(_temporary(output, "empty"))
    client = remote.s3_client()
    try:
        client.put_object(Bucket=bucket, Key=key, Body=b"")
    except Exception as error:
        raise _refused(output, error) from None
    with contextlib.suppress(Exception):
        client.delete_object(Bucket=bucket, Key=key)


def put(output: str, sha256: str) -> str:
    """Copies the checked upload to its final key; returns the object's stamp.

    Raises:
        TargetError, TryAgainError: see `upload`.
    """
    bucket, key = remote.bucket_and_key(output)
    _, temporary = remote.bucket_and_key(_temporary(output, sha256))
    client = remote.s3_client()
    try:
        client.copy({"Bucket": bucket, "Key": temporary}, bucket, key)
        head = client.head_object(Bucket=bucket, Key=key)
        with contextlib.suppress(Exception):
            client.delete_object(Bucket=bucket, Key=temporary)
    except Exception as error:
        raise _refused(output, error) from None
    return f"{head['ContentLength']}:{head['ETag'].strip(chr(34))}"


def noted_sha256(output: str) -> str | None:
    """The sha256 noted beside an object; None if there is no object, or nothing was noted.

    Raises:
        TargetError, TryAgainError: see `upload`. A store that fails is not one that has nothing:
            taken for that, it would have the whole archive rendered again.
    """
    bucket, key = remote.bucket_and_key(output)
    try:
        head = remote.s3_client().head_object(Bucket=bucket, Key=key)
    except Exception as error:
        if code_of(error) in ("404", "NoSuchKey", "NotFound"):
            return None
        raise _refused(output, error) from None
    noted = head["Metadata"].get("sha256")
    return None if noted is None else str(noted)


def _temporary(output: str, sha256: str) -> str:
    folder, _, name = output.rpartition("/")
    return f"{folder}/.{name}.{sha256[:12]}.tmp"


def _refused(output: str, error: Exception) -> TilemapperError:
    code = code_of(error)
    if is_passing(error):
        return TryAgainError(f"{output}: the store does not answer ({code}); try again later")
    return TargetError(f"{output}: the store refuses it ({code}); check rights and credentials")
