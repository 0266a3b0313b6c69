"""Retrieval quality of BM25, vectors, their fusion and the reranker on two corpora with known answers.

    python benchmarks/retrieval_quality.py [--data ../shared/data] [--sets squad aws_docs] [--questions 1000] [--home DIR]
                                           [--reranker maxsim] [--rerank-depth 20]

Each corpus is ingested by the real ``rag ingest`` (default settings) into a RAG_HOME below ``--home``, and
the questions are asked by the real ``rag retrieve --batch``. A second run only asks the questions. Prints
recall@5, recall@10, MRR@10 and nDCG@10, counted over documents (the best chunk of each): SQuAD paragraphs
(one text file each), pages of AWS guides (Markdown as it is).

The last row has the candidates of the linear fusion judged by the query pipeline's own rerank step, one
question at a time and without its cache of passages (RAG_MAXSIM_CACHE_MB=0), so that its time is that of
passages never seen before. Its last column is search and rerank together. Another reranker than maxsim
takes its settings (RAG_RERANK_…, RAG_CROSS_ENCODER_…) from the environment.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rag_platform import backends
from rag_platform.commands.retrieve import open_retriever
from rag_platform.ingestion.workbench import Workbench
from rag_platform.query.rerank import rerank
from rag_platform.records import LOCAL_OPERATOR
from rag_platform.settings import Settings

DEPTH = 50
"""Chunks retrieved for each question, from which ten documents are ranked."""

METHODS: dict[str, tuple[str, dict[str, str]]] = {
    "BM25": ("keyword", {}),
    "vector": ("vector", {}),
    "hybrid linear": ("hybrid", {"RAG_FUSION": "linear"}),
    "hybrid rrf": ("hybrid", {"RAG_FUSION": "rrf"}),
}


_KEPT = ("RAG_CACHE_DIR", "RAG_RERANK_", "RAG_CROSS_ENCODER_")


def environment(home: Path, env: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment without the developer's own settings, for a home."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAG_") or k.startswith(_KEPT)}
    return kept | {"RAG_HOME": str(home)} | (env or {})


def rag(home: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    """Run ``rag`` on a home and return its standard output."""
    command = [sys.executable, "-m", "rag_platform.cli", *arguments]
    done = subprocess.run(command, env=environment(home, env), stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def reranked(home: Path, texts: Sequence[str], vendor: str, depth: int) -> list[tuple[list[str], float]]:
    """Return (uris best first, milliseconds of search and rerank) of each question, by the steps of the query
    pipeline: hybrid retrieval, linear fusion, and ``depth`` candidates judged by the reranker."""
    settings = Settings.from_env(environment(home, {"RAG_FUSION": "linear", "RAG_MAXSIM_CACHE_MB": "0"}))
    reranker = backends.load("rerankers", vendor).build(settings)
    found: list[tuple[list[str], float]] = []
    with Workbench(settings) as bench:
        index, retriever = open_retriever(bench)

        async def ask() -> None:
            await reranker.ping()  # the model is loaded before the first question, as by a server
            for start in range(0, len(texts), 50):
                part = texts[start : start + 50]
                for text, r in zip(
                    part, await retriever.retrieve_many(index, part, LOCAL_OPERATOR, DEPTH), strict=True
                ):
                    started = time.perf_counter()
                    hits = await rerank(reranker, text, r.hits, r.legs, depth=depth, timeout_s=60)
                    spent = (time.perf_counter() - started) * 1000
                    found.append(([h.uri for h in hits], r.timings_ms["search"] + spent))
            await reranker.aclose()

        bench.run(ask())
    return found


def corpus_folder(corpus: Path, home: Path) -> Path:
    """Return a folder of documents whose relative path, less ``.txt``, is the document's id."""
    if (corpus / "docs").is_dir():
        return corpus / "docs"
    folder = home / "documents"
    folder.mkdir(parents=True, exist_ok=True)
    for line in (corpus / "corpus.jsonl").read_text().splitlines():
        row = json.loads(line)
        target = folder / f"{row['id']}.txt"
        if not target.exists():
            target.write_text(f"{row['title']}\n\n{row['text']}\n")
    return folder


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


def evaluate(corpus: Path, home: Path, limit: int, reranker: str, rerank_depth: int) -> None:
    """Ingest one corpus and print one line a method."""
    started = time.perf_counter()
    done = json.loads(
        rag(home, "ingest", "--source", str(corpus_folder(corpus, home)), "--name", corpus.name, "--json")
    )
    status = json.loads(rag(home, "status", "--json"))
    asked = questions(corpus, limit)
    print(
        f"\n{corpus.name}: {status['documents']} documents, {status['chunks']} chunks ({done['embedded']} texts embedded now, "
        f"{time.perf_counter() - started:.0f} s), {len(asked)} questions"
    )
    print(f"{'':19}{'recall@5':>10}{'recall@10':>11}{'MRR@10':>9}{'nDCG@10':>9}{'ms/search':>11}", flush=True)
    batch = home / "questions.jsonl"
    batch.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, (text, _) in enumerate(asked)))
    rights = [right for _, right in asked]
    for name, (mode, env) in METHODS.items():
        lines = rag(home, "retrieve", "--batch", str(batch), "-k", str(DEPTH), "--mode", mode, env=env).splitlines()
        answers = [json.loads(line) for line in lines]
        show(name, [([r["uri"] for r in a["results"]], a["timings_ms"]["search"]) for a in answers], rights)
    if reranker != "none":
        found = reranked(home, [text for text, _ in asked], reranker, rerank_depth)
        show(f"hybrid + {reranker}", found, rights)


def show(name: str, found: Sequence[tuple[Sequence[str], float]], rights: Sequence[set[str]]) -> None:
    """Print one line: the means of the metrics and the median time of (uris best first, milliseconds)."""
    scores = [
        metrics(list(dict.fromkeys(uri.removesuffix(".txt") for uri in uris)), right)
        for (uris, _), right in zip(found, rights, strict=True)
    ]
    r5, r10, mrr, ndcg = (statistics.fmean(column) for column in zip(*scores, strict=True))
    spent = statistics.median(ms for _, ms in found)
    print(f"{name:19}{r5:>10.3f}{r10:>11.3f}{mrr:>9.3f}{ndcg:>9.3f}{spent:>11.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--sets", nargs="+", default=["squad", "aws_docs"])
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "rag-retrieval-quality")
    parser.add_argument("--reranker", default="maxsim", help="maxsim, cross_encoder, cohere_compatible or none")
    parser.add_argument("--rerank-depth", type=int, default=20)
    options = parser.parse_args()
    for name in options.sets:
        home = options.home / name
        home.mkdir(parents=True, exist_ok=True)
        evaluate(options.data / name, home, options.questions, options.reranker, options.rerank_depth)


if __name__ == "__main__":
    main()
