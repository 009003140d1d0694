"""A client of a scheduler."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import dask
from distributed import Client

from tilemapper.errors import NoWorkerError
from tilemapper.render.address import scheduler_address
from tilemapper.render.nannies import quiet_dask


class _Client(Client):
    """Closed at once where it cannot start: dask leaves that to the interpreter, which hangs."""

    def start(self, **options: Any) -> None:
        """Connects to the scheduler."""
        try:
            super().start(**options)  # type: ignore[no-untyped-call]
        except BaseException:
            with contextlib.suppress(OSError, TimeoutError):
                self.close(timeout=2)  # type: ignore[no-untyped-call]
            raise


def address_of(scheduler: str | None, *, insecure: bool) -> str:
    """The address that a user means; see `scheduler_address`.

    Raises:
        OptionError: it may not be used.
    """
    configured = dask.config.get("scheduler-address", None)
    return scheduler_address(scheduler or "dask", configured, insecure=insecure)


@contextlib.contextmanager
def connected(address: Any) -> Iterator[Any]:
    """A client of a scheduler, for a while.

    TLS, and how long a scheduler that may be just starting is tried for, are as dask's
    configuration says.

    Args:
        address: an address, or a cluster of this process.

    Raises:
        NoWorkerError: no scheduler answers.
    """
    with quiet_dask():
        try:
            client: Any = _Client(  # type: ignore[no-untyped-call]
                address, set_as_default=False, name="tilemapper"
            )
        except (OSError, TimeoutError, ValueError, TypeError) as error:
            raise NoWorkerError(
                f"{address}: no scheduler answers ({error}); start it, check its address and TLS "
                "settings, then run the same command again"
            ) from error
        try:
            yield client
        finally:
            with contextlib.suppress(OSError, TimeoutError):
                client.close(timeout=2)
