"""Idempotency keys: the same write sent twice is done once and answered twice.

Kept in this process. The one write of the API, feedback, replaces what the same reader said before, so that a
repetition after a restart, or to another replica, changes nothing either.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from serve.call import Call
from serve.problems import IDEMPOTENCY_MISMATCH, Problem, invalid
from serve.reply import Reply

KEPT_S = 24 * 3600.0
MAX_KEPT = 10_000
_KEY = re.compile(rb"[\x21-\x7e]{1,128}\Z")


@dataclass(slots=True)
class _Kept:
    body_hash: bytes
    at: float
    reply: asyncio.Future[Reply]


class IdempotentWrites:
    """Replies of recent writes by caller and key; failures are forgotten, so that they can be tried again."""

    def __init__(self, kept_s: float = KEPT_S, max_kept: int = MAX_KEPT) -> None:
        self._kept_s, self._max_kept = kept_s, max_kept
        self._replies: OrderedDict[tuple[str | None, bytes], _Kept] = OrderedDict()

    async def once(self, call: Call, key_id: str | None, body: bytes, write: Callable[[], Awaitable[Reply]]) -> Reply:
        """Return the reply of ``write``, or that of the earlier request with the same ``Idempotency-Key``.

        Raises:
            Problem: 400 malformed key; 422 the key came with another body before.
        """
        key = call.headers.get(b"idempotency-key")
        if key is None:
            return await write()
        if not _KEY.match(key):
            raise invalid("Idempotency-Key", "must be 1 to 128 visible ASCII characters")
        self._expire()
        place = (key_id, key)
        digest = hashlib.sha256(body).digest()
        kept = self._replies.get(place)
        if kept is not None:
            if kept.body_hash != digest:
                raise Problem(IDEMPOTENCY_MISMATCH, "send another key with another body")
            return await asyncio.shield(kept.reply)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[place] = _Kept(digest, time.monotonic(), reply)
        try:
            done = await write()
        except BaseException as e:
            self._replies.pop(place, None)
            if isinstance(e, Exception):
                reply.set_exception(e)
                reply.exception()  # nobody may be waiting for it
            else:
                reply.cancel()
            raise
        reply.set_result(done)
        return done

    def _expire(self) -> None:
        oldest_kept = time.monotonic() - self._kept_s
        while self._replies:
            place, kept = next(iter(self._replies.items()))
            if len(self._replies) < self._max_kept and kept.at > oldest_kept:
                return
            del self._replies[place]
