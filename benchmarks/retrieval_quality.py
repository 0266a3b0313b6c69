"""Retrieval quality of BM25, vectors and their fusion on two corpora with known answers.

    python benchmarks/retrieval_quality.py [--data ../shared/data] [--sets squad aws_docs] [--questions 1000] [--home DIR]

Prints recall@5, recall@10, MRR@10 and nDCG@10, counted over documents (the best chunk of each):
SQuAD paragraphs, pages of AWS guides. ``build_index`` is the ingestion half: local embedder, 200-token
chunks, the default vector store. Vectors are kept in ``--home`` (default: a folder of the temporary
directory), so a second run costs only the questions.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import math
import random
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rag_platform import backends, identity
from rag_platform.query.retrieve import Retriever
from rag_platform.records import LOCAL_OPERATOR, SearchMode, index_schema
from rag_platform.settings import Settings

DEPTH = 50
"""Chunks retrieved for each question, from which ten documents are ranked."""

METHODS: dict[str, tuple[SearchMode, dict[str, Any]]] = {
    "BM25": ("keyword", {}),
    "vector": ("vector", {}),
    "hybrid linear": ("hybrid", {"fusion": "linear"}),
    "hybrid rrf": ("hybrid", {"fusion": "rrf"}),
}


# ── ingestion ──


def documents(corpus: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (id, title, text): rows of ``corpus.jsonl``, else the Markdown files of ``docs``."""
    if (corpus / "corpus.jsonl").exists():
        for line in (corpus / "corpus.jsonl").read_text().splitlines():
            row = json.loads(line)
            yield row["id"], row["title"], row["text"]
        return
    for path in sorted((corpus / "docs").rglob("*.md")):
        text = path.read_text()
        heading = re.search(r"^#+\s+(.+?)\s*(?:<a|$)", text, re.M)
        yield path.relative_to(corpus / "docs").as_posix(), heading.group(1) if heading else path.stem, text


def chunks(text: str, tokenizer: Any, tokens: int) -> Iterator[tuple[str, str]]:
    """Yield (heading path, text) of each chunk of at most ``tokens`` tokens."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(
        separators=["\n\n", "\n", ". ", " ", ""],
        chunk_size=tokens,
        chunk_overlap=0,
        keep_separator="end",
        add_start_index=True,
        length_function=lambda part: tokenizer.count([part])[0],
    )
    headings = [(m.start(), len(m[1]), m[2]) for m in re.finditer(r"^(#+)\s+(.+?)\s*(?:<a.*)?$", text, re.M)]
    for piece in splitter.create_documents([text]):
        start = piece.metadata["start_index"]
        path: list[tuple[int, str]] = []
        for at, level, name in headings:
            if at > start:
                break
            path = [p for p in path if p[0] < level] + [(level, name)]
        yield " > ".join(name for _, name in path), piece.page_content


async def build_index(corpus: Path, home: Path) -> tuple[Settings, str]:
    """Chunk, embed and index a corpus under ``home``; return the settings and the index name."""
    settings = Settings.from_env(home=home)
    embedder = backends.load("embedders", settings.embedder).build(settings)
    store = backends.load("vector_stores", settings.vector_store).build(settings)
    spec = embedder.spec
    rows = [
        (uri, title, ordinal, path, text)
        for uri, title, body in documents(corpus)
        for ordinal, (path, text) in enumerate(chunks(body, embedder.tokenizer, settings.chunk_tokens))
    ]
    index = f"quality-{identity.digest(*(r[4] for r in rows), spec.fingerprint)[:16]}"
    if index in await store.indexes() and await store.count(index) == len(rows):
        return settings, index
    vectors = await _embed(embedder, [r[4] for r in rows], home / f"{index}.npy")
    await store.drop(index)
    await store.ensure(index, spec.dimensions)
    blank = dict.fromkeys(("version_id", "content_hash", "snapshot_id", "run_id", "mime_type", "language"), "")
    uris = list(dict.fromkeys(r[0] for r in rows))
    for at in range(0, len(uris), 1000):
        chosen = set(uris[at : at + 1000])
        part = [
            blank
            | {
                "chunk_id": identity.chunk_id(identity.document_id("quality", uri), "", ordinal),
                "document_id": identity.document_id("quality", uri),
                "source": "quality",
                "uri": uri,
                "title": title,
                "ordinal": ordinal,
                "start": 0,
                "end": len(text),
                "heading_path": path,
                "tags": [],
                "tenant": "default",
                "acl": ["public"],
                "text": text,
                "vector": vector,
            }
            for (uri, title, ordinal, path, text), vector in zip(rows, vectors, strict=True)
            if uri in chosen
        ]
        await store.replace(index, pa.Table.from_pylist(part, schema=index_schema(spec.dimensions)), stale=[])
    await store.maintain(index, force=True)
    await store.aclose()
    return settings, index


async def _embed(embedder: Any, texts: Sequence[str], cache: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    if cache.exists():
        return np.load(cache, allow_pickle=False)  # type: ignore[no-any-return]
    order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
    vectors = np.zeros((len(texts), embedder.spec.dimensions), np.float32)
    size, slots = embedder.spec.batch_size, asyncio.Semaphore(embedder.spec.concurrency)

    async def one(batch: list[int]) -> None:
        async with slots:
            vectors[batch] = (await embedder.embed([texts[n] for n in batch])).vectors

    await asyncio.gather(*(one(order[at : at + size]) for at in range(0, len(order), size)))
    np.save(cache, vectors)
    return vectors


# ── questions ──


def questions(corpus: Path, limit: int) -> list[tuple[str, set[str]]]:
    """Return (text, ids of the right documents) of a seeded sample of the answerable questions."""
    right: dict[str, set[str]] = {}
    for line in (corpus / "qrels.tsv").read_text().splitlines()[1:]:
        question, document, _ = line.split("\t")
        right.setdefault(question, set()).add(document)
    rows = [json.loads(line) for line in (corpus / "queries.jsonl").read_text().splitlines()]
    found = [(row["text"], right[row["id"]]) for row in rows if row["id"] in right]
    random.Random(7).shuffle(found)
    return found[:limit]


def metrics(ranked: Sequence[str], right: set[str]) -> tuple[float, float, float, float]:
    """Return recall@5, recall@10, MRR@10 and nDCG@10 (binary relevance) of ranked document ids."""
    ranks = [n for n, document in enumerate(ranked[:10], 1) if document in right]
    ideal = sum(1 / math.log2(n + 1) for n in range(1, min(len(right), 10) + 1))
    return (
        sum(n <= 5 for n in ranks) / len(right),
        len(ranks) / len(right),
        1 / ranks[0] if ranks else 0.0,
        sum(1 / math.log2(n + 1) for n in ranks) / ideal,
    )


async def evaluate(corpus: Path, home: Path, limit: int) -> None:
    """Build the index of one corpus and print one line a method."""
    started = time.perf_counter()
    settings, index = await build_index(corpus, home)
    asked = questions(corpus, limit)
    print(f"\n{corpus.name}: {len(asked)} questions, index ready after {time.perf_counter() - started:.0f} s")
    print(f"{'':15}{'recall@5':>10}{'recall@10':>11}{'MRR@10':>9}{'nDCG@10':>9}{'ms/search':>11}")
    embedder = backends.load("embedders", settings.embedder).build(settings)
    store = backends.load("vector_stores", settings.vector_store).build(settings)
    for name, (mode, changes) in METHODS.items():
        retriever = Retriever(store, embedder, dataclasses.replace(settings, **changes))
        scores, spent = [], []
        for at in range(0, len(asked), 32):
            part = asked[at : at + 32]
            found = await retriever.retrieve_many(index, [text for text, _ in part], LOCAL_OPERATOR, DEPTH, mode)
            for retrieval, (_, right) in zip(found, part, strict=True):
                scores.append(metrics(list(dict.fromkeys(h.uri for h in retrieval.hits)), right))
                spent.append(retrieval.timings_ms["search"])
        r5, r10, mrr, ndcg = np.mean(scores, axis=0)
        print(f"{name:15}{r5:>10.3f}{r10:>11.3f}{mrr:>9.3f}{ndcg:>9.3f}{np.median(spent):>11.1f}", flush=True)
    await store.aclose()
    await embedder.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--sets", nargs="+", default=["squad", "aws_docs"])
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "rag-retrieval-quality")
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    for name in options.sets:
        asyncio.run(evaluate(options.data / name, options.home, options.questions))


if __name__ == "__main__":
    main()
