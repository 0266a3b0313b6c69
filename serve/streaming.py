"""Server-sent events: the events of an answer as they happen, over a connection that may break at any time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec
from litestar.types import Receive, Scope, Send

from rag_platform.query.events import Event, Final
from serve.attend import BACKSTOP_S, gone, out_of_time
from serve.call import Call, ClientGone
from serve.problems import Problem, problem_of
from serve.reply import NO_STORE

PING = b": still working\n\n"
PING_S = 10.0
"""Silence after which a comment is sent, so that no proxy takes the connection for dead."""
AFTERWARDS_S = 1.0
"""What the work may still take after its last event."""
HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    NO_STORE,
    (b"x-accel-buffering", b"no"),  # or nginx would collect the events and send them at the end
)

_encoder = msgspec.json.Encoder()


class Framing(Protocol):
    """How one kind of client wants its events."""

    def event(self, event: Event) -> bytes:
        """Return the frames of an event; empty for one that this client does not want."""
        ...

    def failure(self, problem: Problem, request_id: str) -> bytes:
        """Return the last frames of a stream that broke off."""
        ...


class QueryFraming:
    """Of ``POST /v1/query``: the event's name and its JSON; an error is a problem's body."""

    def event(self, event: Event) -> bytes:
        name = type(event).__struct_config__.tag
        return b"event: %b\ndata: %b\n\n" % (str(name).encode(), _encoder.encode(event))

    def failure(self, problem: Problem, request_id: str) -> bytes:
        return b"event: error\ndata: %b\n\n" % problem.body(request_id)


class EventStream:
    """A streamed response. Its status is sent with the first event, so that an early failure has one of its own.

    The events are taken as fast as they come, whatever the speed of the client: a slow reader holds its own
    connection and no place of the gate. When the client hangs up, the work is cancelled.

    Args:
        limit_s: the question's deadline in seconds.
    """

    def __init__(self, call: Call, events: AsyncGenerator[Event, None], framing: Framing, limit_s: float) -> None:
        self._call, self._events, self._framing, self._limit_s = call, events, framing, limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inbox: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        working = asyncio.ensure_future(self._pump(inbox))
        watching = asyncio.ensure_future(gone(receive))
        watching.add_done_callback(lambda _: inbox.put_nowait(ClientGone()))
        alarm = loop.call_later(self._limit_s + BACKSTOP_S, inbox.put_nowait, out_of_time())
        started = False
        try:
            while True:
                frames, finished = await self._next(inbox, started)
                if frames and not started:
                    await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
                    started = True
                if frames or finished:
                    await send({"type": "http.response.body", "body": frames, "more_body": not finished})
                if finished:
                    await asyncio.wait((working,), timeout=AFTERWARDS_S)
                    return
        except ClientGone:
            if not started:
                raise
            self._call.gone = True
        finally:
            alarm.cancel()
            for task in (working, watching):
                task.cancel()  # without effect on one that is done

    async def _pump(self, inbox: asyncio.Queue[Event | Exception | None]) -> None:
        try:
            async for event in self._events:
                inbox.put_nowait(event)
            inbox.put_nowait(None)
        except Exception as e:
            inbox.put_nowait(e)
        finally:
            await self._events.aclose()

    async def _next(self, inbox: asyncio.Queue[Event | Exception | None], started: bool) -> tuple[bytes, bool]:
        """Return the frames of everything that has happened, and whether that was the end.

        Raises:
            Exception: the work failed before anything was sent.
            ClientGone: the client hung up.
        """
        try:
            async with asyncio.timeout(PING_S):
                item = await inbox.get()
        except TimeoutError:
            return PING, False
        frames: list[bytes] = []
        while True:
            if isinstance(item, ClientGone):
                raise item
            if isinstance(item, Exception):
                if not started and not frames:
                    raise item
                problem = problem_of(item, self._call.request_id)
                frames.append(self._framing.failure(problem, self._call.request_id))
                return b"".join(frames), True
            if item is None:
                return b"".join(frames), True
            frames.append(self._framing.event(item))
            if isinstance(item, Final):
                return b"".join(frames), True
            if inbox.empty():
                return b"".join(frames), False
            item = inbox.get_nowait()
