"""Clients of the ``openai`` SDK, one an event loop: a client's connections belong to the loop that opened them."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openai

OPENAI_URL = "https://api.openai.com/v1"


class OpenAIClients:
    """Makes a client at the first call in a loop. It never tries again by itself: whoever calls owns the retries.

    Args:
        base_url: address with ``/v1``; None: OpenAI's own.
        timeout_s: the SDK's own, which is per read: a deadline has to be set around every call.
    """

    def __init__(self, api_key: str, base_url: str | None, timeout_s: float) -> None:
        self._api_key, self._base_url, self._timeout_s = api_key, base_url or OPENAI_URL, timeout_s
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, openai.AsyncOpenAI] = (
            weakref.WeakKeyDictionary()
        )

    async def get(self) -> openai.AsyncOpenAI:
        """Return the running loop's client."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            # In a thread: importing the SDK takes seconds, in which other requests must be answered.
            fresh = await asyncio.to_thread(self._new)
            client = self._clients.setdefault(loop, fresh)
        return client

    async def aclose(self) -> None:
        """Close the connections of the running loop; a later call opens new ones."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    def _new(self) -> openai.AsyncOpenAI:
        import openai

        return openai.AsyncOpenAI(
            api_key=self._api_key, base_url=self._base_url, max_retries=0, timeout=self._timeout_s
        )
