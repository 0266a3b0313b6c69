"""How fast does the query API answer, and how close is that to what its parts need?

    python benchmarks/query_load.py [--home RAG_HOME] [--data ../shared/data/squad] [--seconds 15]

Starts the real `rag serve` on a home with an index (SQuAD's paragraphs are ingested when none is given), and
beside it an empty JSON endpoint of the same web stack. For each kind of request: the capacity (closed loop,
as fast as 4 connections get answers), then an open loop at half of that rate, in which a request's latency
counts from the moment at which it was due, whether or not the server was ready for it. Kinds:

    empty      POST of a small JSON body, validated, answered with a small one: the floor of the web stack
    exact      a question that is cached under exactly these words
    semantic   a wording, never used before, of a cached question (what people put in front of questions)
    retrieve   /v1/retrieve of a question never asked before, profile fast (no rerank)
    answer     /v1/query of a question never asked before, extractive, profile fast

Questions that are refused are never cached, and are left out of `exact` and `semantic`. `odd` counts answers that
are not what the row is about (misses among the hits, errors).

Each floor is measured right after its row, with the same arrivals at the same rate, because latency depends on both
(an idle machine wakes slowly, a busy one queues): the empty endpoint; in this process, without HTTP or service, the
question's embedding, and embedding and raw hybrid search. Client and server share the machine's cores: read the
ratios before the numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "squad"
CONNECTIONS = 64
EMPTY = """
import msgspec, sys, uvicorn
from litestar import Litestar, post
class Body(msgspec.Struct):
    question: str
@post("/empty", status_code=200)
async def empty(data: Body) -> dict[str, str]:
    return {"answer": "x"}
uvicorn.run(Litestar([empty], openapi_config=None), port=int(sys.argv[1]), log_level="error", access_log=False)
"""


@dataclasses.dataclass
class Kind:
    """One row of the table: where to post, and the bodies, each a new one."""

    name: str
    port: int
    path: str
    bodies: Iterator[bytes]
    expect: str = ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class Connection:
    """A kept-alive HTTP/1.1 connection that posts JSON: a general client would cost more than the server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        if self._streams is not None and self._streams[0].at_eof():  # the server has closed it for idleness
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        length = next(int(x.split(b":")[1]) for x in lines if x.lower().startswith(b"content-length:"))
        return int(lines[0].split()[1]), await reader.readexactly(length)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def capacity(kind: Kind, seconds: float, connections: int = 4) -> float:
    """Answers per second when every connection asks again as soon as it has its answer."""
    stop_at = time.perf_counter() + seconds
    done = 0

    async def ask() -> None:
        nonlocal done
        connection = Connection(kind.port)
        while time.perf_counter() < stop_at:
            status, _ = await connection.post(kind.path, next(kind.bodies))
            assert status == 200, f"{kind.name}: HTTP {status}"
            done += 1
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(connections)))
    return done / (time.perf_counter() - started)


async def open_loop(ask: Callable[[], Awaitable[bool]], rate: float, seconds: float) -> tuple[list[float], int]:
    """Latencies in ms, from the moment each request was due, and how many answers were not as expected."""
    latencies: list[float] = []
    odd = 0

    async def one(due: float) -> None:
        nonlocal odd
        good = await ask()
        latencies.append((time.perf_counter() - due) * 1000)
        odd += not good

    rng = random.Random(1)
    due = time.perf_counter()
    end = due + seconds
    tasks = []
    while due < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
        due += rng.expovariate(rate)
    await asyncio.gather(*tasks)
    return latencies, odd


@contextlib.contextmanager
def client(kind: Kind) -> Iterator[Callable[[], Awaitable[bool]]]:
    """What sends one request of this kind over one of ``CONNECTIONS`` and says whether the answer is as expected."""
    idle: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
    for _ in range(CONNECTIONS):
        idle.put_nowait(Connection(kind.port))

    async def ask() -> bool:
        connection = await idle.get()
        status, body = await connection.post(kind.path, next(kind.bodies))
        idle.put_nowait(connection)
        return status == 200 and kind.expect.encode() in body

    try:
        yield ask
    finally:
        while not idle.empty():
            idle.get_nowait().close()


async def cached(port: int, questions: list[str]) -> list[str]:
    """Ask each question twice; return those whose second answer comes from the cache."""
    connection = Connection(port)
    kept = []
    for question in questions:
        body = json.dumps({"question": question}).encode()
        await connection.post("/v1/query", body)
        status, answer = await connection.post("/v1/query", body)
        if status == 200 and b'"cache":"exact"' in answer:
            kept.append(question)
    connection.close()
    return kept


async def warm(kind: Kind, count: int) -> None:
    connection = Connection(kind.port)
    for _ in range(count):
        await connection.post(kind.path, next(kind.bodies))
    connection.close()


@contextlib.asynccontextmanager
async def parts(home: Path, questions: list[str]) -> AsyncIterator[tuple[Callable[..., Awaitable[bool]], ...]]:
    """What embeds a question never embedded before, and what also searches the index with it: in this process, with
    the same embedder and store, and nothing of the service around them."""
    from rag_platform import backends
    from rag_platform.ledger import open_ledger
    from rag_platform.query.retrieve import search_legs
    from rag_platform.records import LOCAL_OPERATOR
    from rag_platform.settings import Settings

    settings = Settings.from_env({"RAG_HOME": str(home)})
    embedder = backends.load("embedders", settings.embedder).build(settings)
    store = backends.load("vector_stores", settings.vector_store).build(settings)
    ledger = open_ledger(settings)
    release = ledger.releases.serving()
    assert release is not None, "nothing is indexed"
    index, next_question = release.index_name, itertools.cycle(questions)

    async def embed() -> bool:
        return len((await embedder.embed([next(next_question)], kind="query")).vectors) == 1

    async def embed_and_search() -> bool:
        question = next(next_question)
        vector = (await embedder.embed([question], kind="query")).vectors[0]
        return bool(await search_legs(store, index, [(question, vector)], LOCAL_OPERATOR, "hybrid", None, 30))

    try:
        for _ in range(10):
            await embed_and_search()
        yield embed, embed_and_search
    finally:
        await embedder.aclose()
        await store.aclose()
        ledger.close()


OPENINGS = ("hi", "hello", "hey", "please", "ok", "so", "and")
REQUESTS = (
    "can you tell me", "could you please tell me", "would you explain to me", "do you know", "does anyone know",
    "I want to know", "I would like to know", "I need to find out", "I am wondering", "let me know", "tell me",
)  # fmt: skip


def wordings(questions: list[str]) -> Iterator[str]:
    """Each question with something else in front each time, which changes nothing of what is asked."""
    fronts = [
        " ".join([*openings, request])
        for size in (1, 2, 3)
        for openings in itertools.product(OPENINGS, repeat=size)
        for request in REQUESTS
    ]
    for front in itertools.cycle(fronts):
        for question in questions:
            yield f"{front}: {question}"


def kinds(api: int, empty: int, known: list[str], new: list[str]) -> list[Kind]:
    rng = random.Random(3)

    def body(**fields: object) -> bytes:
        return json.dumps(fields).encode()

    def fresh(make: Callable[[str], bytes]) -> Iterator[bytes]:
        """Every question once; when they run out, with a number that makes it another question."""
        for round_ in itertools.count():
            for question in new:
                yield make(question if round_ == 0 else f"{question} (part {round_ * 1000 + rng.randrange(1000)})")

    hits = [body(question=q) for q in known]
    return [
        Kind("empty", empty, "/empty", itertools.cycle(hits)),
        Kind("exact", api, "/v1/query", itertools.cycle(hits), '"cache":"exact"'),
        Kind("semantic", api, "/v1/query", (body(question=q) for q in wordings(known)), '"cache":"semantic"'),
        Kind("retrieve", api, "/v1/retrieve", fresh(lambda q: body(question=q, profile="fast"))),
        Kind("answer", api, "/v1/query", fresh(lambda q: body(question="So: " + q, profile="fast", use_cache=False))),
    ]


async def measure(home: Path, api: int, empty: int, questions: list[str], seconds: float) -> None:
    known = await cached(api, questions[:200])
    all_kinds = {k.name: k for k in kinds(api, empty, known, questions[len(questions) // 2 :])}
    print(f"{'':<20}{'capacity/s':>12}{'offered/s':>12}{'P50 ms':>9}{'P95 ms':>9}{'P99 ms':>9}{'odd':>6}")

    async def row(name: str, ask: Callable[[], Awaitable[bool]], rate: float, most: float | None = None) -> float:
        latencies, odd = await open_loop(ask, rate, seconds)
        cuts = statistics.quantiles(latencies, n=100)
        shown = "" if most is None else f"{most:,.0f}"
        print(
            f"{name:<20}{shown:>12}{rate:>12,.0f}{cuts[49]:>9.2f}{cuts[94]:>9.2f}{cuts[98]:>9.2f}{odd:>6}", flush=True
        )
        return cuts[49]

    async def half_load(name: str) -> tuple[float, float]:
        kind = all_kinds[name]
        await warm(kind, 20)
        most = await capacity(kind, seconds / 3)
        with client(kind) as ask:
            return most / 2, await row(name, ask, most / 2, most)

    async with parts(home, questions[-400:]) as (embed, embed_and_search):
        await half_load("empty")
        exact_rate, exact = await half_load("exact")
        with client(all_kinds["empty"]) as ask:
            floor = await row("  floor: empty", ask, exact_rate)
        semantic_rate, _ = await half_load("semantic")
        await row("  floor: embedding", embed, semantic_rate)
        retrieve_rate, retrieve = await half_load("retrieve")
        both = await row("  floor: emb.+search", embed_and_search, retrieve_rate)
        await half_load("answer")
    print(f"\nexact / empty                       P50 ratio {exact / floor:.2f}   (target 2)")
    print(f"retrieve / (embedding + raw search) P50 ratio {retrieve / both:.2f}   (target 1.5)")


def ingest(home: Path, data: Path) -> None:
    folder = home / "documents"
    folder.mkdir(parents=True, exist_ok=True)
    for line in (data / "corpus.jsonl").read_text().splitlines():
        row = json.loads(line)
        (folder / f"{row['id']}.txt").write_text(f"{row['title']}\n\n{row['text']}\n")
    command = [sys.executable, "-m", "rag_platform.cli", "ingest", "--source", str(folder), "--name", "squad"]
    subprocess.run(command, env=os.environ | {"RAG_HOME": str(home)}, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="a RAG_HOME with an index; default: SQuAD's paragraphs are ingested")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--seconds", type=float, default=15)
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        raise SystemExit(f"{arguments.data} does not exist: name SQuAD's folder with --data")
    rows = [json.loads(line) for line in (arguments.data / "queries.jsonl").read_text().splitlines()]
    questions = [row["text"] for row in rows]
    random.Random(5).shuffle(questions)
    with tempfile.TemporaryDirectory() as scratch:
        home = (arguments.home or Path(scratch)).absolute()
        if arguments.home is None:
            ingest(home, arguments.data)
        api, empty = free_port(), free_port()
        environment = os.environ | {"RAG_HOME": str(home), "RAG_QUERY_LOG": os.environ.get("RAG_QUERY_LOG", "metadata")}
        servers = [
            subprocess.Popen(
                [sys.executable, "-m", "rag_platform.cli", "serve", "--port", str(api), "--quiet"], env=environment
            ),
            subprocess.Popen([sys.executable, "-c", EMPTY, str(empty)]),
        ]
        try:
            wait_for(f"http://127.0.0.1:{api}/health/live")
            wait_for(f"http://127.0.0.1:{empty}/empty")
            asyncio.run(measure(home, api, empty, questions, arguments.seconds))
        finally:
            for server in servers:
                server.terminate()
                server.wait(30)


if __name__ == "__main__":
    main()
