"""Where a running cluster's scheduler is, and whether it may be used."""

from __future__ import annotations

import ipaddress
import json
import socket
from pathlib import Path
from typing import Any

from tilemapper.errors import OptionError


def scheduler_address(scheduler: str, configured: str | None, *, insecure: bool) -> str:
    """The address that a user's ``--scheduler`` means, if it may be used.

    Args:
        scheduler: ``tcp://`` or ``tls://`` address, path of a scheduler file, or ``dask`` for
            ``configured``.
        configured: the address in dask's own configuration, if there is one.
        insecure: take an address elsewhere without TLS.

    Raises:
        OptionError: no address, one without a port, or one elsewhere without TLS, and ``insecure``
            is off.
    """
    address: Any = scheduler
    if scheduler == "dask":
        address = configured
        if not address:
            raise OptionError(
                "--scheduler dask: dask's configuration names no scheduler-address; set "
                "DASK_SCHEDULER_ADDRESS, or give the address itself"
            )
    elif "://" not in scheduler:
        try:
            address = json.loads(Path(scheduler).read_text())["address"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OptionError(
                f"--scheduler {scheduler}: is neither an address such as tcp://HOST:8786 nor a "
                "scheduler file; check it"
            ) from error
    protocol, _, rest = str(address).partition("://")
    if protocol not in ("tcp", "tls"):
        raise OptionError(f"--scheduler {address}: give an address with tcp:// or tls://")
    host, _, port = rest.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise OptionError(
            f"--scheduler {address}: host and port are needed, such as {protocol}://HOST:8786"
        )
    if protocol == "tcp" and not insecure and not _is_loopback(host):
        raise OptionError(
            f"--scheduler {address}: without TLS anyone on the way can run code on the workers; "
            "use tls://, or give --insecure if the network is closed"
        )
    return str(address)


def _is_loopback(host: str) -> bool:
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host.strip("[]"), None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address)).is_loopback for address in found)
