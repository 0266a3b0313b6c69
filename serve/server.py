"""Running the API: uvicorn, started and stopped the way that a load balancer and Ctrl-C expect.

A stop has three steps: ``/health/ready`` says 503 (for ``RAG_HTTP_SHUTDOWN_DELAY_S``, so that the load balancer
notices), the port closes, and requests in flight have ``RAG_HTTP_SHUTDOWN_GRACE_S`` to finish. A second signal
ends it at once.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from rag_platform.errors import ConfigurationError
from rag_platform.ledger import open_ledger
from rag_platform.query.question import MAX_DEADLINE_S
from rag_platform.settings import Settings
from serve.api import Api
from serve.app import create_app
from serve.auth import check_listen
from serve.origins import is_loopback
from serve.protocol import Connection, close_stuck
from serve.service_protocol import AnsweringService
from serve.settings import HttpSettings

SWEEP_TICKS = 10
"""uvicorn ticks ten times a second."""
MAX_REQUEST_S = MAX_DEADLINE_S + 60
KEEP_ALIVE_S = 75
"""Longer than load balancers keep idle connections, which must be the ones to close them."""


class Server(uvicorn.Server):
    """uvicorn's server with the three steps.

    Args:
        on_start: called with the address once the port is open.
    """

    def __init__(self, config: uvicorn.Config, api: Api, on_start: Callable[[str], None]) -> None:
        super().__init__(config)
        self._api, self._on_start = api, on_start
        self._close_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            name = self.servers[0].sockets[0].getsockname()
            host = f"[{name[0]}]" if ":" in name[0] else name[0]
            self._on_start(f"http://{host}:{name[1]}")

    async def on_tick(self, counter: int) -> bool:
        if counter % SWEEP_TICKS == 0:
            # The API gives up on a body after its own, shorter timeout and says so; this is for what never got there.
            close_stuck(self.server_state.connections, self._api.http.read_timeout_s + 2, MAX_REQUEST_S)
        if self._close_at is not None and time.monotonic() >= self._close_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def stop(self) -> None:
        """Begin to stop; a second time: stop now. Safe from a signal handler and from another thread."""
        if self._close_at is None:
            self._api.stopping = True
            self._close_at = time.monotonic() + self._api.http.shutdown_delay_s
        else:
            self.should_exit = self.force_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that ended us gracefully does not kill us afterwards: the exit code is 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handler(number: int, frame: FrameType | None) -> None:
            self.stop()

        before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)


def make_server(
    settings: Settings,
    host: str,
    port: int,
    on_start: Callable[[str], None],
    service: AnsweringService | None = None,
) -> Server:
    """Return a server that has not started.

    Args:
        on_start: called with the server's address once the port is open.
        service: see ``create_app``.

    Raises:
        ConfigurationError: a setting makes no sense, or ``host`` needs an API key and there is none.
    """
    ledger = open_ledger(settings, lazy=True)
    try:
        check_listen(host, ledger)
    finally:
        ledger.close()
    http = HttpSettings.read(settings)
    app = create_app(settings, service, bound_host=host)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # a spoofed X-Forwarded-For must not look like anything
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(http.shutdown_grace_s)),
    )
    return Server(config, app.state.api, on_start)


def run(settings: Settings, host: str, port: int, *, quiet: bool = False) -> None:
    """Serve until a signal ends it.

    Args:
        port: 0 chooses a free one, which is printed.

    Raises:
        ConfigurationError: see ``make_server``; or the port is taken.
    """

    def announce(url: str) -> None:
        if not quiet:
            shown = url if is_loopback(host) else f"{url} (API keys needed)"
            print(f"query API: {shown}  playground: {url}/  OpenAPI: {url}/schema  stop with Ctrl-C", flush=True)

    server = make_server(settings, host, port, announce)
    try:
        server.run()
    except SystemExit as e:  # uvicorn's way to say that it could not start; its log line is above
        raise ConfigurationError(f"cannot listen on {host}:{port}: is the port in use?") from e
    finally:
        sys.stdout.flush()
