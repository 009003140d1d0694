"""Paths and messages without what must not be kept: users, passwords, signatures, tokens."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import parse_qsl, quote, unquote, urlencode

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


def redacted(text: str, *paths: str) -> str:
    """A message with every URL in it made `public`.

    paths: the addresses that the message may be about: what is secret in them is taken out wherever
    it stands, since GDAL cuts addresses into pieces.
    """
    text = _URL.sub(lambda found: public(found[0]), text)
    found = set[str]().union(*map(_secrets, paths))
    for secret in sorted(found, key=len, reverse=True):
        text = text.replace(secret, "")
    return text


def _secrets(path: str) -> set[str]:
    _, separator, rest = path.partition("://")
    if not separator:
        return set()
    place, _, query = rest.partition("?")
    user = place.partition("/")[0].rpartition("@")[0]
    found = {f"{user}@", user.partition(":")[2], f"?{query}", query}
    found |= {value for key, value in parse_qsl(query) if _SECRET.match(key)}
    found |= {quote(value, safe="") for value in found} | {unquote(value) for value in found}
    # A single letter would tear words apart, and gives nothing away.
    return {value for value in found if len(value) > 2}


def scene_id(path: str) -> str:
    """Name of a scene in the ledger: the same for every signature of the same URL."""
    plain = public(path)
    if "://" in path:
        query = path.partition("?")[2].partition("#")[0]
        kept = [(k, v) for k, v in parse_qsl(query) if not _SECRET.match(k)]
        if kept:
            plain += "?" + urlencode(sorted(kept))
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:32]
