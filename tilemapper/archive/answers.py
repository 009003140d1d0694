"""What a server's refusal means: something about what was asked for, or trouble that passes."""

from __future__ import annotations

import http.client
import socket
import urllib.error
from collections.abc import Iterator

from tilemapper.raster.answers import passes

# A store's answers to credentials that were good for some hours.
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired")


def code_of(error: BaseException) -> str:
    """What a server answered, in one word: its code, or the kind of the error."""
    codes = [_answer_of(link) for link in _chain(error)]
    return next((code for code in codes if code), type(error).__name__)


def has_expired(error: BaseException) -> bool:
    """Whether what ended is the time for which credentials were given."""
    return code_of(error) in _EXPIRED


def is_passing(error: BaseException) -> bool:
    """Whether an error says nothing of what was asked for: no answer, or a server in trouble."""
    return any(_is_passing(link) for link in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those it came from, as boto3 and urllib wrap them."""
    link: BaseException | None = error
    while link is not None:
        yield link
        reason = getattr(link, "reason", None)
        link = reason if isinstance(reason, BaseException) else link.__cause__ or link.__context__


def _answer_of(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return str(error.code)
    answer = getattr(error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return passes(error.code)
    if isinstance(error, http.client.InvalidURL):
        return False
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, TimeoutError | ConnectionError | http.client.HTTPException):
        return True
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        return passes(int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)))
    # botocore's own, which is no dependency of this module.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"HTTPClientError", "ConnectionError"})
