"""``rag serve``: the query API and its playground."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from rag_platform.commands import console


@console.handles_errors
def serve(
    port: Annotated[int, typer.Option(help="Port of the API; 0 chooses a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Anything but loopback needs an API key (`rag keys create`).")
    ] = "127.0.0.1",
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing unless it fails.")] = False,
) -> None:
    """Serve the query API, the playground at / and the OpenAPI page at /schema; stop with Ctrl-C."""
    settings = console.load_settings()
    # By name: the app stands above this package, which must not import it.
    importlib.import_module("serve.server").run(settings, host, port, quiet=quiet)
