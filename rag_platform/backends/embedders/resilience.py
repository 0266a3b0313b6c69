"""Retries, deadlines, rate limits and validation for any embedder that calls a service.

A wrapper with the embedder's own interface. The wrapped one makes exactly one upstream request per
``embed`` and maps its vendor's errors; everything about trying again is decided here and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tenacity

from rag_platform.backends.embedders.base import Embedder, EmbedderSpec, TextKind, Tokenizer
from rag_platform.backends.throttle import AdaptiveLimiter, CircuitBreaker, RateBudget
from rag_platform.errors import DependencyError, DependencyTimeout, RateLimited
from rag_platform.records import EmbeddingBatch


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of one upstream.

    Attributes:
        timeout_s: deadline of one ``embed``, waits and retries included, when the caller gives none.
        request_timeout_s: deadline of one request.
        max_request_texts, max_request_tokens: what one request may hold.
        requests_per_minute, tokens_per_minute: 0 is unlimited.
    """

    timeout_s: float
    request_timeout_s: float
    max_request_texts: int
    max_request_tokens: int
    requests_per_minute: float = 0
    tokens_per_minute: float = 0
    first_backoff_s: float = 0.25
    max_backoff_s: float = 20.0


class ResilientEmbedder:
    """``inner``, called as often as is useful and not once more."""

    def __init__(self, inner: Embedder, policy: Policy) -> None:
        self._inner = inner
        self._policy = policy
        self._dependency = f"embedder:{inner.spec.name}"
        self.limiter = AdaptiveLimiter(inner.spec.concurrency)
        self.breaker = CircuitBreaker()
        self._requests = RateBudget(policy.requests_per_minute) if policy.requests_per_minute else None
        self._tokens = RateBudget(policy.tokens_per_minute) if policy.tokens_per_minute else None

    @property
    def spec(self) -> EmbedderSpec:
        return self._inner.spec

    @property
    def tokenizer(self) -> Tokenizer:
        return self._inner.tokenizer

    async def embed(
        self, texts: Sequence[str], *, kind: TextKind = "passage", timeout_s: float | None = None
    ) -> EmbeddingBatch:
        """Embed any number of texts, in as many requests as the limits demand.

        Raises:
            DependencyError: as the last attempt failed, or the upstream is known to be down for
                longer than the deadline.
            EmbeddingRefused: one of the requests was refused for its content.
        """
        timeout_s = self._policy.timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        if not texts:
            return EmbeddingBatch(np.empty((0, self.spec.dimensions), np.float32), 0)
        tasks: list[asyncio.Task[EmbeddingBatch]] = []
        try:
            async with asyncio.timeout(timeout_s):
                counts = await asyncio.to_thread(self.tokenizer.count, texts)
                for part in self._requests_for(counts):
                    work = self._persist(texts[part], sum(counts[part]), kind, deadline)
                    tasks.append(asyncio.ensure_future(work))
                batches = await asyncio.gather(*tasks)
        except TimeoutError as e:
            raise DependencyTimeout(self._dependency, f"no answer within {timeout_s:g} s") from (
                self.breaker.last_error or e
            )
        finally:
            for task in tasks:
                task.cancel()
        return EmbeddingBatch(np.concatenate([b.vectors for b in batches]), sum(b.tokens for b in batches))

    async def ping(self) -> None:
        await self.embed(["ping"])

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _requests_for(self, counts: Sequence[int]) -> Iterator[slice]:
        start = tokens = 0
        for i, count in enumerate(counts):
            count = min(count, self.spec.max_tokens)
            full = i - start >= self._policy.max_request_texts or tokens + count > self._policy.max_request_tokens
            if full and i > start:
                yield slice(start, i)
                start, tokens = i, 0
            tokens += count
        yield slice(start, len(counts))

    async def _persist(self, texts: Sequence[str], tokens: int, kind: TextKind, deadline: float) -> EmbeddingBatch:
        backoff = tenacity.wait_random_exponential(self._policy.first_backoff_s, self._policy.max_backoff_s)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after_s if isinstance(error, DependencyError) else None
            return max(backoff(state), asked or 0.0)

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, DependencyError) and e.retryable),
            wait=wait,
            stop=lambda state: time.monotonic() + state.upcoming_sleep >= deadline,
            reraise=True,
        )
        return await retrying(self._attempt, texts, tokens, kind, deadline)

    async def _attempt(self, texts: Sequence[str], tokens: int, kind: TextKind, deadline: float) -> EmbeddingBatch:
        async with self.limiter.slot():
            await self._stay_within_rate(tokens, deadline)
            await self._wait_while_down(deadline)
            started = time.monotonic()
            until = min(self._policy.request_timeout_s, deadline - started)
            if until <= 0:
                self.breaker.abandoned()
                raise DependencyTimeout(self._dependency, "no time left for a request")
            try:
                try:
                    async with asyncio.timeout(until):
                        batch = await self._inner.embed(texts, kind=kind, timeout_s=until)
                except TimeoutError as e:
                    raise DependencyTimeout(self._dependency, f"no answer within {until:.3g} s") from e
                batch = EmbeddingBatch(validated(batch.vectors, len(texts), self.spec), batch.tokens)
            except RateLimited as e:
                self.limiter.slow_down(started)
                self.breaker.failed(e)
                raise
            except DependencyError as e:
                self.breaker.failed(e)
                raise
            except asyncio.CancelledError:
                # Our own deadline ends a call that had its time; anything else is the caller leaving.
                if time.monotonic() >= deadline:
                    self.breaker.failed(DependencyTimeout(self._dependency, f"no answer within {until:.3g} s"))
                else:
                    self.breaker.abandoned()
                raise
            except BaseException:
                self.breaker.abandoned()
                raise
            self.limiter.succeeded()
            self.breaker.succeeded()
            return batch

    async def _stay_within_rate(self, tokens: int, deadline: float) -> None:
        for budget, units in ((self._requests, 1), (self._tokens, tokens)):
            if budget is None:
                continue
            delay = budget.reserve(units)
            if time.monotonic() + delay >= deadline:
                budget.give_back(units)
                raise DependencyError(
                    self._dependency,
                    "its configured rate leaves no room before the deadline",
                    retryable=False,
                    retry_after_s=delay,
                )
            await asyncio.sleep(delay)

    async def _wait_while_down(self, deadline: float) -> None:
        while (delay := self.breaker.delay(self._policy.request_timeout_s)) > 0:
            last = self.breaker.last_error
            hopeless = last is not None and not last.retryable
            if hopeless or time.monotonic() + delay >= deadline:
                raise DependencyError(
                    self._dependency, "not called: it failed repeatedly", retryable=False, retry_after_s=delay
                ) from last
            await asyncio.sleep(delay)


def validated(vectors: Any, count: int, spec: EmbedderSpec) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return ``vectors`` as float32 (count, dimensions) of unit length.

    Raises:
        DependencyError: another shape, a value that is not finite, or a vector of length zero.
    """
    dependency = f"embedder:{spec.name}"
    array = np.asarray(vectors, dtype=np.float32)
    if array.shape != (count, spec.dimensions):
        raise DependencyError(dependency, f"vectors of shape {array.shape} where {(count, spec.dimensions)} is due")
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(array.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise DependencyError(dependency, "vectors with values that are not finite")
    if not (norms > 1e-12).all():
        raise DependencyError(dependency, "vectors of length zero")
    unit: np.ndarray[Any, np.dtype[np.float32]] = (array / norms).astype(np.float32)
    return unit
