"""A query service in memory for tests of HTTP: what it does is written in the question.

"…"             answers at once
"cached …"      is an exact cache hit
"hold …"        answers after ``release``
"fail …"        raises Unanswerable        "bug …"       raises a ValueError that holds the question
"degraded …"    names two degradations     "late fail …" fails after its first text (streams)
"stubborn …"    does not give up when cancelled, until ``release``
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from rag_platform.ledger import open_ledger
from rag_platform.query.answer import Answer, Citation, Degradation, Usage
from rag_platform.query.citing import CitedSpan
from rag_platform.query.events import Event, Final, Passages, StageDone, TextDelta
from rag_platform.query.log import QueryLog
from rag_platform.query.question import Question
from rag_platform.query.retrieve import Retrieval
from rag_platform.query.service import Unanswerable
from rag_platform.records import Hit, Principal
from rag_platform.settings import Settings

CHUNK_ID = "1b9f5a52-7c0e-5a0a-9d58-3f1c7e0f4b11"
QUOTE = "Chunks are cut at sentence ends."
HIT = Hit(
    chunk_id=CHUNK_ID,
    document_id="d" * 32,
    source="docs",
    uri="guide/chunks.md",
    title="Chunks",
    version_id="v" * 32,
    content_hash="c" * 64,
    snapshot_id="s1",
    run_id="run-1",
    ordinal=0,
    start=10,
    end=10 + len(QUOTE),
    page=3,
    heading_path="Guide > Chunks",
    mime_type="text/markdown",
    language="en",
    modified_at=1.0,
    tags=(),
    tenant="default",
    acl=("public",),
    text=QUOTE,
    score=0.5,
)


class FakeService:
    """See the module. Counters are read by tests from another thread."""

    def __init__(self, settings: Settings) -> None:
        self._ledger = open_ledger(settings, lazy=True)
        self.query_log = QueryLog(self._ledger, settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._released = asyncio.Event()
        self.closed = False
        self.reset()

    def reset(self) -> None:
        """Forget everything, while nothing runs."""
        self._released = asyncio.Event()
        self.states = {"release": "ok", "vector_store": "ok", "llm": "ok"}
        self.running = 0
        self.finished = 0
        self.cancelled = 0
        self.questions: list[Question] = []
        self.thumbs: list[tuple[str, int, str | None, str | None]] = []

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def aclose(self) -> None:
        await asyncio.to_thread(self.query_log.close)
        self._ledger.close()
        self.closed = True

    def release(self) -> None:
        """Let everything that holds go on, now and from now on; from any thread."""
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._released.set)

    async def cached(self, question: Question) -> Answer | None:
        return answer_to(question, cache="exact") if question.text.startswith("cached") else None

    async def answer(self, question: Question) -> Answer:
        [final] = [e async for e in self.stream(question) if isinstance(e, Final)]
        return final.answer

    async def stream(self, question: Question) -> AsyncGenerator[Event, None]:
        self.questions.append(question)
        self.running += 1
        try:
            for event in (StageDone("embed", 1.5), Passages(["Chunks"], ["guide/chunks.md"])):
                if not question.text.startswith("fail"):
                    yield event
            await self._act(question)
            found = answer_to(question)
            for word in ("Chunks are cut ", "at sentence ends. [1]"):
                yield TextDelta(word)
            if question.text.startswith("late fail"):
                raise Unanswerable("gone", 7.0)
            yield Final(found)
            self.finished += 1
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _act(self, question: Question) -> None:
        text = question.text
        if text.startswith("hold"):
            await self._released.wait()
        if text.startswith("stubborn"):
            while not self._released.is_set():
                try:
                    await self._released.wait()
                except asyncio.CancelledError:
                    continue
        if text.startswith("fail"):
            raise Unanswerable("nothing works", 7.0)
        if text.startswith("bug"):
            raise ValueError(f"cannot handle {text}")

    async def retrieve(self, question: Question) -> Retrieval:
        self.questions.append(question)
        await self._act(question)
        degraded = (Degradation("embed", "DependencyTimeout"),) if question.text.startswith("degraded") else ()
        return Retrieval([HIT], "keyword" if degraded else question.mode, {"search": 1.0, "total": 1.0}, degraded)

    async def citation(self, chunk_id: str, principal: Principal) -> CitedSpan | None:
        return CitedSpan(HIT, "x" * 5000, "y" * 5000) if chunk_id == CHUNK_ID else None

    async def feedback(self, request_id: str, rating: int, comment: str | None, key_id: str | None) -> bool:
        self.thumbs.append((request_id, rating, comment, key_id))
        return request_id != "unknown"

    async def ready(self) -> dict[str, str]:
        return self.states


def answer_to(question: Question, cache: str = "miss") -> Answer:
    """Return the answer that every question gets."""
    degraded = [Degradation("reranker", "DependencyTimeout"), Degradation("llm", "RateLimited")]
    citation = Citation(
        number=1,
        chunk_id=CHUNK_ID,
        document_id=HIT.document_id,
        source=HIT.source,
        uri=HIT.uri,
        title=HIT.title,
        page=HIT.page,
        heading_path=HIT.heading_path,
        start=HIT.start,
        end=HIT.end,
        quote=QUOTE,
        score=0.5,
        version_id=HIT.version_id,
        snapshot_id=HIT.snapshot_id,
        run_id=HIT.run_id,
    )
    text = "Chunks are cut at sentence ends. [1]"
    return Answer(
        request_id=question.request_id,
        answer="Something else holds. [1]" if question.text.startswith("corrected") else text,
        citations=[citation],
        mode="full",
        generator="extractive",
        degraded=degraded if question.text.startswith("degraded") else [],
        cache=cache,  # type: ignore[arg-type]
        refused=False,
        usage=Usage(prompt_tokens=11, completion_tokens=7),
        cost_usd=0.0,
        timings_ms={"total": 1.0},
        release_id="r1",
        profile=question.profile_name,
    )
