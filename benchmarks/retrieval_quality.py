"""Retrieval quality of BM25, vectors and their fusion on two corpora with known answers.

    python benchmarks/retrieval_quality.py [--data ../shared/data] [--sets squad aws_docs] [--questions 1000] [--home DIR]

Each corpus is ingested by the real ``rag ingest`` (default settings) into a RAG_HOME below ``--home``, and
the questions are asked by the real ``rag retrieve --batch``. A second run only asks the questions. Prints
recall@5, recall@10, MRR@10 and nDCG@10, counted over documents (the best chunk of each): SQuAD paragraphs
(one text file each), pages of AWS guides (Markdown as it is).
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

DEPTH = 50
"""Chunks retrieved for each question, from which ten documents are ranked."""

METHODS: dict[str, tuple[str, dict[str, str]]] = {
    "BM25": ("keyword", {}),
    "vector": ("vector", {}),
    "hybrid linear": ("hybrid", {"RAG_FUSION": "linear"}),
    "hybrid rrf": ("hybrid", {"RAG_FUSION": "rrf"}),
}


def rag(home: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    """Run ``rag`` on a home and return its standard output."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAG_") or k == "RAG_CACHE_DIR"}
    command = [sys.executable, "-m", "rag_platform.cli", *arguments]
    done = subprocess.run(
        command, env=kept | {"RAG_HOME": str(home)} | (env or {}), stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


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


def evaluate(corpus: Path, home: Path, limit: int) -> None:
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
    print(f"{'':15}{'recall@5':>10}{'recall@10':>11}{'MRR@10':>9}{'nDCG@10':>9}{'ms/search':>11}", flush=True)
    batch = home / "questions.jsonl"
    batch.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, (text, _) in enumerate(asked)))
    for name, (mode, env) in METHODS.items():
        lines = rag(home, "retrieve", "--batch", str(batch), "-k", str(DEPTH), "--mode", mode, env=env).splitlines()
        scores, spent = [], []
        for answer, (_, right) in zip(map(json.loads, lines), asked, strict=True):
            ranked = dict.fromkeys(r["uri"].removesuffix(".txt") for r in answer["results"])
            scores.append(metrics(list(ranked), right))
            spent.append(answer["timings_ms"]["search"])
        r5, r10, mrr, ndcg = (statistics.fmean(column) for column in zip(*scores, strict=True))
        print(f"{name:15}{r5:>10.3f}{r10:>11.3f}{mrr:>9.3f}{ndcg:>9.3f}{statistics.median(spent):>11.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--sets", nargs="+", default=["squad", "aws_docs"])
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "rag-retrieval-quality")
    options = parser.parse_args()
    for name in options.sets:
        home = options.home / name
        home.mkdir(parents=True, exist_ok=True)
        evaluate(options.data / name, home, options.questions)


if __name__ == "__main__":
    main()
