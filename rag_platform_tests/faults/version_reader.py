"""A reader in a process of its own: searches until its input ends, then says what it saw."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rag_platform.backends.vector_stores.base import SearchRequest
from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import LOCAL_OPERATOR, Hit
from rag_platform_tests import harness

_MARK = re.compile(r"edition (\d+)")


def text(edition: int) -> str:
    """Text of one to three chunks (of 32 tokens), each of which says its edition; the last ends with ``finis``."""
    part = f"This part belongs to edition {edition} and says a few more words about nothing in particular at all."
    return "\n\n".join([part] * (edition % 3 + 1)) + " finis"


@contextlib.contextmanager
def reading(
    home: Path, environment: Mapping[str, str], wanted: Iterable[str], pause_s: float = 0.0
) -> Iterator[dict[str, Any]]:
    """Read the documents ``wanted`` during the block; afterwards the dict holds what was seen: the number of
    ``searches``, of ``editions``, and ``faults``."""
    arguments = [str(home), json.dumps(environment), str(pause_s), *wanted]
    process = subprocess.Popen(
        [sys.executable, "-m", "rag_platform_tests.faults.version_reader", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    seen: dict[str, Any] = {}
    try:
        assert process.stdout is not None and process.stdout.readline() == "reading\n"
        yield seen
        told, _ = process.communicate(timeout=60)
        seen |= json.loads(told)
    finally:
        process.kill()
        process.communicate()


def faults_of(hits: list[Hit], wanted: set[str]) -> list[str]:
    """Return what is wrong with one answer that should hold every chunk of the wanted documents."""
    found: dict[str, list[Hit]] = defaultdict(list)
    for hit in hits:
        found[hit.uri].append(hit)
    faults = [f"{uri} is missing" for uri in wanted - set(found)]
    for uri, chunks in found.items():
        editions = {e for hit in chunks for e in _MARK.findall(hit.text)}
        if len(editions) != 1 or len({hit.version_id for hit in chunks}) != 1:
            faults.append(f"{uri} mixes editions {sorted(editions)}")
        last = max(chunks, key=lambda hit: hit.ordinal)
        if sorted(hit.ordinal for hit in chunks) != list(range(len(chunks))) or "finis" not in last.text:
            faults.append(f"{uri} edition {sorted(editions)} is incomplete")
    return faults


async def read(bench: Workbench, index: str, wanted: set[str], stop: asyncio.Event, pause_s: float) -> dict[str, Any]:
    seen: set[str] = set()
    faults: list[str] = []
    count = 0
    vector = np.full(bench.pipeline.embedder.dimensions, 0.05, np.float32)
    while not stop.is_set():
        request = SearchRequest(LOCAL_OPERATOR, k=1000, legs=("vector", "keyword"), text="edition", vector=vector)
        result = await bench.store.search(index, request)
        for leg in ("vector", "keyword"):
            hits = result.legs[leg]
            faults += [f"{leg}: {f}" for f in faults_of(hits, wanted)]
            seen |= {e for hit in hits for e in _MARK.findall(hit.text)}
        count += 1
        if count == 1:
            print("reading", flush=True)
        await asyncio.sleep(pause_s)
    return {"searches": count, "editions": len(seen), "faults": faults[:20]}


async def until_told(bench: Workbench, index: str, wanted: set[str], pause_s: float) -> dict[str, Any]:
    stop = asyncio.Event()
    reading = asyncio.ensure_future(read(bench, index, wanted, stop, pause_s))
    await asyncio.to_thread(sys.stdin.read)
    stop.set()
    return await reading


def main() -> None:
    home, environment, pause_s, *wanted = sys.argv[1:]
    with Workbench(harness.settings(Path(home), **json.loads(environment))) as bench:
        release = bench.ledger.releases.serving()
        assert release is not None
        print(json.dumps(bench.run(until_told(bench, release.index_name, set(wanted), float(pause_s)))), flush=True)


if __name__ == "__main__":
    main()
