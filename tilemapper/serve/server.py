"""A server from its setting to its end: socket first, then the rest, everything given back."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from tilemapper.serve.service import Service, Setting

CACHE_MB = 64
_END_S = 3  # for requests that are under way when the server is told to end


def serve(
    setting: Setting,
    bound: socket.socket,
    *,
    public: bool = False,
    names: Sequence[str] = (),
    on_ready: Callable[[Service, str], None] = lambda service, url: None,
) -> None:
    """Serves until a signal ends it; uploads and maps are removed then.

    Args:
        setting: rasters, folders, models and limits.
        bound: from `tilemapper.serve.binding.bind`.
        public: answer under any address, not only under those of loopback.
        names: further host names to answer to.
        on_ready: called with the service and the page's address, before the first request.

    Raises:
        TilemapperError: of its kinds; what was given cannot be served.
        Interrupted: a signal ended it.
    """
    import rasterio
    import uvicorn

    from tilemapper.serve.app import make_app
    from tilemapper.serve.guard import Guard

    # GDAL would take a twentieth of all memory; a few rows of file blocks are enough.
    with bound, rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20):
        service = Service(setting)
        try:
            host, port = bound.getsockname()[:2]
            on_ready(service, f"http://{f'[{host}]' if ':' in host else host}:{port}/")
            config = uvicorn.Config(
                Guard(make_app(service), public=public, names=names),
                log_config=None,  # uvicorn's own asks stdout, which may be closed, for a terminal
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_END_S,
                limit_concurrency=512,
                ws="none",
                lifespan="on",
            )
            service.warm_up()
            uvicorn.Server(config).run(sockets=[bound])
        finally:
            service.close()
