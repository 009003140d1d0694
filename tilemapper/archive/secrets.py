"""Paths and messages without what must not be kept: users, passwords, signatures, tokens."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import parse_qsl, urlencode

_URL = re.compile(r"(?:https?|s3)://[^\s'\"<>]+")
# Parameters that change with every signature, and those that are keys by themselves.
_SECRET = re.compile(
    r"^(x-amz-|x-goog-|awsaccesskeyid|googleaccessid|signature|sig$|se$|sp$|sv$|sr$|st$|spr$|sip$"
    r"|ske$|skoid$|sks$|skt$|sktid$|skv$|expires|policy|key-pair-id|.*token|.*key$|.*secret"
    r"|.*password|auth)",
    re.IGNORECASE,
)


def public(path: str) -> str:
    """A path or URL without user, password and query; a local path as it is."""
    scheme, separator, rest = path.partition("://")
    if not separator:
        return path
    host, slash, name = rest.partition("?")[0].partition("#")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{name}"


def redacted(text: str) -> str:
    """A message with every URL in it made `public`."""
    return _URL.sub(lambda found: public(found[0]), text)


def scene_id(path: str) -> str:
    """Name of a scene in the ledger: the same for every signature of the same URL."""
    plain = public(path)
    if "://" in path:
        query = path.partition("?")[2].partition("#")[0]
        kept = [(k, v) for k, v in parse_qsl(query) if not _SECRET.match(k)]
        if kept:
            plain += "?" + urlencode(sorted(kept))
    return hashlib.sha256(plain.encode("utf-8", "surrogateescape")).hexdigest()[:32]
