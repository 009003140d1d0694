"""The socket, before anything heavy is loaded: a port that is taken is said at once."""

from __future__ import annotations

import errno
import ipaddress
import socket

from tilemapper.errors import OptionError, TilemapperError, TryAgainError


def bind(host: str, port: int, *, public: bool) -> socket.socket:
    """A bound socket; nothing heavy has been loaded when the port turns out to be taken.

    Raises:
        OptionError: the host is not on loopback and ``public`` was not given, or is unknown.
        TryAgainError: another program listens there.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise OptionError(f"--host {host}: unknown; use 127.0.0.1") from error
    if not public and not ipaddress.ip_address(address[0]).is_loopback:
        raise OptionError(
            f"--host {host}: others could reach it there; give --public as well if they shall, "
            "or use 127.0.0.1"
        )
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        # Else a second server could bind as well, until one of them listens.
        bound.listen(256)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise TryAgainError(
                f"{host}:{port}: another program listens there; end it, or choose another --port"
            ) from error
        raise TilemapperError(
            f"{host}:{port}: cannot listen there ({error.strerror}); choose another --port"
        ) from error
    return bound
