"""How good the answers are, end to end: questions that the documents answer, and questions that they do not.

    python benchmarks/answer_quality.py [--data ../shared/data] [--questions 400] [--profile balanced] [--home DIR]

SQuAD is ingested by the real ``rag ingest`` as two sources, 40 articles and 8 withheld ones, and the questions are
asked by the real ``rag ask --batch`` of the first source alone. So there are three kinds of questions: those that
an article answers; those on a withheld article, which nothing answers although they read the same; and customers'
questions about AWS, which are far from everything. Prints the share of answers that hold a gold answer of SQuAD's
annotators, the share of refusals, and the time. Without a language model in the settings the answers are
extractive. With ``RAG_LLM=openai_compatible`` (and its ``RAG_LLM_…`` variables) the model's answers are measured
in a second row. The sample is seeded. A second run only asks the questions.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

from retrieval_quality import rag

ANSWERING, WITHHELD = "answering", "withheld"
_WITHHELD_ARTICLES = 8
_SEED = 20


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ingest(squad: Path, home: Path) -> set[str]:
    """Write the paragraphs as documents, ingest both sources, and return the withheld articles."""
    paragraphs = read(squad / "corpus.jsonl")
    articles = sorted({row["id"].partition("#")[0] for row in paragraphs})
    withheld = set(random.Random(_SEED).sample(articles, _WITHHELD_ARTICLES))
    for row in paragraphs:
        source = WITHHELD if row["id"].partition("#")[0] in withheld else ANSWERING
        target = home / source / f"{row['id']}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.write_text(f"{row['title']}\n\n{row['text']}\n", encoding="utf-8")
    for source in (ANSWERING, WITHHELD):
        rag(home, "ingest", "--source", str(home / source), "--name", source, "--json")
    return withheld


def ask(home: Path, questions: list[dict[str, Any]], profile: str, env: dict[str, str]) -> list[dict[str, Any]]:
    """Return the product's answers, in order."""
    batch = home / "questions.jsonl"
    batch.write_text(
        "".join(json.dumps({"id": q["id"], "text": q["text"]}) + "\n" for q in questions), encoding="utf-8"
    )
    only = ("--filter", f'source = "{ANSWERING}"', "--profile", profile)
    return [json.loads(line) for line in rag(home, "ask", "--batch", str(batch), *only, "--json", env=env).splitlines()]


def holds(text: str, gold: list[str]) -> bool:
    """Tell whether one of the gold answers stands in the text, regardless of case and white space."""
    text = _plain(text)
    return any(_plain(answer) in text for answer in gold)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).lower().strip()


def report(
    home: Path, kinds: dict[str, list[dict[str, Any]]], gold: dict[str, list[str]], profile: str, env: dict[str, str]
) -> None:
    """Ask all questions one way and print one row."""
    answers = {kind: ask(home, questions, profile, env) for kind, questions in kinds.items()}
    told = answers["answerable"]
    first = [
        not a["refused"] and holds(a["citations"][0]["quote"] if a["citations"] else "", gold[a["id"]]) for a in told
    ]
    whole = [not a["refused"] and holds(a["answer"], gold[a["id"]]) for a in told]
    refused = {kind: statistics.fmean(a["refused"] for a in rows) for kind, rows in answers.items()}
    spent = [a["timings_ms"]["total"] for rows in answers.values() for a in rows]
    degraded = sum(bool(a["degraded"]) for rows in answers.values() for a in rows)
    name = max({a["generator"] for a in told}, key=lambda g: sum(a["generator"] == g for a in told))
    print(
        f"{name[:24]:24}{statistics.fmean(first):>12.3f}{statistics.fmean(whole):>14.3f}{refused['answerable']:>16.3f}"
        f"{refused['withheld']:>18.3f}{refused['foreign']:>16.3f}{statistics.median(spent):>10.0f}{degraded:>10}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--questions", type=int, default=400, help="answerable ones; half as many withheld ones")
    parser.add_argument("--profile", default="balanced")
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "rag-answer-quality")
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    squad = options.data / "squad"
    withheld = ingest(squad, options.home)
    gold = {row["id"]: row["answers"] for row in read(squad / "answers.jsonl")}
    rows = read(squad / "queries.jsonl")
    random.Random(_SEED).shuffle(rows)
    kinds = {
        "answerable": [q for q in rows if q["article"] not in withheld][: options.questions],
        "withheld": [q for q in rows if q["article"] in withheld][: options.questions // 2],
        "foreign": read(options.data / "aws_docs" / "queries.jsonl")[: options.questions // 2],
    }
    print(
        ", ".join(f"{len(questions)} {kind}" for kind, questions in kinds.items())
        + f" questions, profile {options.profile}"
    )
    print(
        f"{'':24}{'gold in one':>12}{'gold in answer':>15}{'refused: right':>16}{'withheld':>17}{'foreign':>16}{'ms':>10}{'degraded':>10}"
    )
    report(options.home, kinds, gold, options.profile, {"RAG_LLM": "extractive"})
    if os.environ.get("RAG_LLM", "extractive") != "extractive":
        report(
            options.home,
            kinds,
            gold,
            options.profile,
            {k: v for k, v in os.environ.items() if k.startswith("RAG_LLM")},
        )


if __name__ == "__main__":
    main()
