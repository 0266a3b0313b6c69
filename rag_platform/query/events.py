"""What a stream of an answer consists of, in this order: stages and text in any mixture, then the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec

from rag_platform.query.answer import Answer


class StageDone(msgspec.Struct, frozen=True, tag_field="event", tag="stage"):
    """A stage has ended; ``ms`` is its wall time."""

    name: str
    ms: float


class Passages(msgspec.Struct, frozen=True, tag_field="event", tag="passages"):
    """What the answer will rest on: the title and place of each passage, in the order of their numbers."""

    titles: list[str]
    uris: list[str]


class TextDelta(msgspec.Struct, frozen=True, tag_field="event", tag="text"):
    """A piece of the answer's text. Provisional: citations are verified when all of it is there."""

    text: str


class Final(msgspec.Struct, frozen=True, tag_field="event", tag="answer"):
    """The answer. Replaces every text that came before it."""

    answer: Answer


Event = StageDone | Passages | TextDelta | Final


Emit = Callable[[Event], None]


async def relay(work: Callable[[Emit], Awaitable[None]]) -> AsyncGenerator[Event, None]:
    """Run ``work`` in a task of its own and yield what it emits; leaving early cancels it.

    A task rather than a plain generator, because deadlines and spans may not stay open across a ``yield``.
    """
    queue: asyncio.Queue[Event | None] = asyncio.Queue()

    async def run() -> None:
        try:
            await work(queue.put_nowait)
        finally:
            queue.put_nowait(None)

    task = asyncio.create_task(run())
    try:
        while (event := await queue.get()) is not None:
            yield event
        await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen: whoever left does not want to hear of it
