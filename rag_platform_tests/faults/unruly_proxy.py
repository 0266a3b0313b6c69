"""A TCP proxy that stands before an upstream and breaks it on demand: a process of its own, and its handle.

    python unruly_proxy.py --upstream PORT      prints its own port, then obeys lines on stdin

Modes, which also take hold of connections that are already open:

    ok         forwards
    closed     does not listen: new connections are refused, open ones are reset
    frozen     accepts and forwards nothing, until another mode lets it go on
    slow S     every answer begins S seconds late
    dripping   answers come a byte at a time, one every 60 ms
    garbage    answers at once, with bytes of no protocol
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

Mode = Literal["ok", "closed", "frozen", "slow", "dripping", "garbage"]
MODES: tuple[Mode, ...] = get_args(Mode)
DRIP_S = 0.06
_GARBAGE = random.Random(7).randbytes(64) + b"\r\n\r\nI am not the service you are looking for\r\n"


@dataclass(frozen=True, slots=True)
class Counts:
    """What the proxy saw since it was last asked to forget. A request is what a client sends until it is answered."""

    connections: int
    requests: int


class UnrulyProxy:
    """The proxy, in a process of its own.

    Attributes:
        port: where it listens, the same in every mode.
    """

    def __init__(self, upstream_port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--upstream", str(upstream_port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._answer())

    def become(self, mode: Mode, seconds: float = 0.0) -> None:
        """Change the mode; in effect on return. ``seconds`` belongs to ``slow``."""
        self._tell(f"{mode} {seconds}")

    def counts(self, *, reset: bool = False) -> Counts:
        """Return what was seen; with ``reset`` begin to count anew."""
        return Counts(**json.loads(self._tell("reset" if reset else "counts")))

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.terminate()
        self._process.wait(10)

    def _tell(self, line: str) -> str:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the proxy has ended")
        return line.strip()


@contextlib.contextmanager
def proxied(upstream_port: int) -> Iterator[UnrulyProxy]:
    """Run a proxy for the block."""
    proxy = UnrulyProxy(upstream_port)
    try:
        yield proxy
    finally:
        proxy.close()


# ── the process ──


class _Link:
    """One client's connection."""

    def __init__(self, proxy: _Proxy, client: asyncio.StreamWriter) -> None:
        self.proxy, self.client = proxy, client
        self.server: asyncio.StreamWriter | None = None
        self.asking = False
        """Whether the client spoke last."""

    async def forward(self, from_client: asyncio.StreamReader) -> None:
        """Client to upstream, until one of them ends."""
        answers: asyncio.Task[None] | None = None
        try:
            while data := await from_client.read(65536):
                if not self.asking:
                    self.asking = True
                    self.proxy.requests += 1
                await self.proxy.thawed()
                if self.proxy.mode == "garbage":
                    self.client.write(_GARBAGE)
                    await self.client.drain()
                    return
                if self.server is None:
                    from_server, self.server = await asyncio.open_connection("127.0.0.1", self.proxy.upstream)
                    answers = asyncio.create_task(self._backward(from_server))
                self.server.write(data)
                await self.server.drain()
        except OSError:
            pass
        finally:
            if answers is not None:
                answers.cancel()
                await asyncio.wait([answers])
            self.abort()

    async def _backward(self, from_server: asyncio.StreamReader) -> None:
        try:
            while data := await from_server.read(65536):
                if self.asking and self.proxy.mode == "slow":
                    await asyncio.sleep(self.proxy.seconds)
                self.asking = False
                await self._send(data)
        except OSError:
            pass
        finally:
            self.client.close()

    async def _send(self, data: bytes) -> None:
        while data:
            await self.proxy.thawed()
            if self.proxy.mode == "garbage":
                self.client.write(_GARBAGE)
                self.client.close()
                return
            dripping = self.proxy.mode == "dripping"
            self.client.write(data[:1] if dripping else data)
            data = data[1:] if dripping else b""
            await self.client.drain()
            if dripping:
                await asyncio.sleep(DRIP_S)

    def abort(self) -> None:
        """Reset both ends."""
        for end in (self.client, self.server):
            if end is not None:
                end.transport.abort()


class _Proxy:
    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.mode: Mode = "ok"
        self.seconds = 0.0
        self.connections = self.requests = 0
        self.port = 0
        self._changed = asyncio.Event()
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._listener: asyncio.Server | None = None
        self._reserved: socket.socket | None = None

    async def thawed(self) -> None:
        while self.mode == "frozen":
            await self._changed.wait()

    async def become(self, mode: Mode, seconds: float) -> None:
        self.mode, self.seconds = mode, seconds
        told, self._changed = self._changed, asyncio.Event()
        told.set()
        if mode == "closed":
            if self._listener is not None:
                self._listener.close()
                self._listener = None
                self._reserved = self._bound()  # nobody else shall get our port meanwhile
            for link, task in list(self._links.items()):
                link.abort()
                task.cancel()
        elif self._listener is None:
            await self.listen()

    async def listen(self) -> None:
        reserved, self._reserved = self._reserved or self._bound(), None
        self._listener = await asyncio.start_server(self._serve, sock=reserved, backlog=512)

    def _bound(self) -> socket.socket:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", self.port))
        self.port = bound.getsockname()[1]
        return bound

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = _Link(self, writer)
        task = self._links[link] = asyncio.create_task(link.forward(reader))
        await asyncio.wait([task])
        del self._links[link]


async def _obey(proxy: _Proxy, line: str) -> str:
    word, *rest = line.split()
    if word in MODES:
        await proxy.become(word, float(rest[0]) if rest else 0.0)
        return "done"
    seen = json.dumps({"connections": proxy.connections, "requests": proxy.requests})
    if word == "reset":
        proxy.connections = proxy.requests = 0
    return seen


async def _main(upstream: int) -> None:
    proxy = _Proxy(upstream)
    await proxy.listen()
    print(proxy.port, flush=True)
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        print(await _obey(proxy, line.decode()), flush=True)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--upstream", type=int, required=True)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(arguments.parse_args().upstream))
