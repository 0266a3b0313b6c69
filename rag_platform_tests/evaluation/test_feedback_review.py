"""Thumbs of readers, with what they are about, and golden cases made of them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rag_platform.cli import app
from rag_platform.evaluation.golden import load
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.feedback import FeedbackRow
from rag_platform.ledger.query_log import LoggedChunk, QueryLogRow
from rag_platform.query.service import QueryService
from rag_platform_tests import harness
from rag_platform_tests.evaluation.corpora import ingested
from rag_platform_tests.serve.api_server import ApiServer

KEYS = "handbook.md::The signing key is rotated every 90 days by the platform team."
SALARY = "salaries.txt::The salary band of a senior engineer starts at 91,000 euros."
DAY_S = 86_400.0


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workbench]:
    """The small corpus; commands see its home."""
    monkeypatch.setenv("RAG_OCR", "off")
    with Workbench(harness.settings(tmp_path / "home")) as opened:
        ingested(opened, tmp_path)
        yield opened


def rag(*arguments: str, code: int = 0) -> Any:
    """Run `rag golden review …` in this process; return what it printed as JSON, else as text without line breaks."""
    result = CliRunner().invoke(app, ["golden", "review", *arguments])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if "--json" in arguments and result.stdout else " ".join(result.output.split())


def requests() -> list[str]:
    return [q["request_id"] for q in rag("--json")["questions"]]


def rated(
    bench: Workbench,
    request_id: str,
    question: str | None,
    *ratings: int,
    groups: tuple[str, ...] = (),
    age_days: float = 1.0,
    cites: tuple[str, ...] = (),
    comment: str | None = None,
) -> None:
    """Log an answer and the thumbs of as many readers."""
    at = time.time() - age_days * DAY_S
    cited = tuple(LoggedChunk(document, f"c-{document}", rank) for rank, document in enumerate(cites, 1))
    row = QueryLogRow(
        request_id=request_id,
        at=at,
        tenant="default",
        profile="balanced",
        groups=groups,
        question=question,
        question_hash=f"hash of {question or request_id}",
        answer=question and "An answer.",
        release_id=bench.release_id,
        documents=cited,
    )
    bench.ledger.query_log.add([row])
    for number, rating in enumerate(ratings):
        key = bench.ledger.keys.create(tenant="default", groups=groups, scopes=("query",), name=f"{request_id}{number}")
        thumb = FeedbackRow(request_id=request_id, key_id=key[0].key_id, rating=rating, comment=comment, at=at + number)
        assert bench.ledger.feedback.put(thumb)


def test_a_thumb_over_http_becomes_a_golden_case(bench: Workbench) -> None:
    """A reader asks, is not content and says why; the review shows question, answer, release and cited documents; the
    case is added for that reader, and the question is not shown again."""
    settings = harness.settings(bench.settings.root, RAG_QUERY_LOG="full")
    with ApiServer(settings, QueryService(settings)) as api:
        answer = api.query("How often is the signing key rotated?", deadline_ms=60_000).json()
        body = {"request_id": answer["request_id"], "rating": "down", "comment": "too long"}
        assert api.http.post("/v1/feedback", json=body).status_code == 200
    found = rag("--json")
    [shown] = found["questions"]
    assert (found["thumbs"], found["done"], shown["down"], shown["up"]) == (1, 0, 1, 0)
    assert (shown["question"], shown["answer"]) == ("How often is the signing key rotated?", answer["answer"])
    assert (shown["release_id"], shown["thumbs"][0]["comment"]) == (bench.release_id, "too long")
    cited = {c["uri"] for c in answer["citations"]}
    assert {d["uri"] for d in shown["documents"] if d["cited"]} == cited != set()
    assert {d["uri"] for d in shown["documents"]} > cited and all(d["live"] for d in shown["documents"])
    assert "too long" in rag() and "--dismiss" in rag()

    request = answer["request_id"]
    assert rag("--add", request, "--answer", "every 90 days", "--span", KEYS, "--json")["added"]
    [case] = load(settings.resolved_golden_dir / "golden.yaml").cases
    assert (case.question, case.answer, case.tags) == (shown["question"], "every 90 days", ("feedback",))
    assert (case.case_id, case.tenant) == (f"feedback-{request}", "default")
    assert "nothing to review: 1 thumbs" in rag()
    assert [q["request_id"] for q in rag("--all", "--json")["questions"]] == [request]


def test_the_worst_comes_first_and_a_question_once(bench: Workbench) -> None:
    """Thumbs of the same question and permissions are one entry; those with most thumbs down come first; thumbs up alone
    are left out; so is what is older than the days, and what the query log has deleted is counted."""
    rated(bench, "up", "Who signs the green book?", 1)
    rated(bench, "one", "Where do the bees live?", -1)
    rated(bench, "two-a", "When is the fire pump tested?", -1, 1)
    rated(bench, "two-b", "When is the fire pump tested?", -1, age_days=0.5)
    rated(bench, "other-reader", "When is the fire pump tested?", -1, groups=("staff",), age_days=2)
    rated(bench, "old", "Which barge?", -1, age_days=40)
    found = rag("--json")
    assert [(q["request_id"], q["down"], q["up"]) for q in found["questions"]] == [
        ("two-b", 2, 1),
        ("one", 1, 0),
        ("other-reader", 1, 0),
    ]
    assert found["questions"][0]["requests"] == ["two-a", "two-b"]
    assert "old" in [q["request_id"] for q in rag("--days", "60", "--json")["questions"]]
    assert "up" in [q["request_id"] for q in rag("--all", "--json")["questions"]]
    bench.ledger.query_log.delete_before(time.time() - 0.75 * DAY_S)
    found = rag("--json")
    assert ([q["request_id"] for q in found["questions"]], found["without_row"]) == (["two-b"], 5)
    assert "5 thumbs are about answers that left the query log" in rag()
    assert "has deleted 'one'" in rag("--dismiss", "one", code=2)


def test_a_dismissed_question_is_not_shown_until_somebody_complains_again(bench: Workbench) -> None:
    """Dismissing one answer dismisses all rated answers to that question of that reader; a new complaint brings it back."""
    rated(bench, "a", "Where do the bees live?", -1)
    rated(bench, "b", "Where do the bees live?", -1, age_days=0.5)
    assert sorted(rag("--dismiss", "a", "--json")["dismissed"]) == ["a", "b"]
    assert requests() == []
    assert "1 questions done" in rag()
    rated(bench, "c", "Where do the bees live?", -1, age_days=0.1)
    assert requests() == ["c"]


def test_the_case_is_asked_as_the_reader_who_complained(bench: Workbench) -> None:
    """Permissions are kept: a quote that the reader may not see is refused with what hides it, and nothing is added."""
    rated(bench, "p", "Where does the salary band start?", -1)
    rated(bench, "s", "Where does the salary band start?", -1, groups=("staff",))
    assert "hidden" in rag("--add", "p", "--span", SALARY, code=3)
    path = bench.settings.resolved_golden_dir / "golden.yaml"
    assert not path.exists()
    rag("--add", "s", "--span", SALARY)
    assert requests() == ["p"]
    rag("--add", "p", "--must-refuse")
    assert requests() == []
    assert {(c.groups, c.must_refuse) for c in load(path).cases} == {(("staff",), False), (("public",), True)}


def test_without_texts_the_question_is_typed(bench: Workbench) -> None:
    """RAG_QUERY_LOG=metadata keeps no text: thumb, release and documents are shown, the cure is named, and the reviewer
    gives the question himself. A document that is gone says so."""
    [handbook] = [d.document_id for d in bench.ledger.documents.of_source("docs").values() if d.uri == "handbook.md"]
    rated(bench, "m", None, -1, cites=(handbook, "unknown-document"), comment="where is the key?")
    text = rag()
    assert "RAG_QUERY_LOG=full" in text and "where is the key?" in text and "(unknown)" in text
    assert "give it with --question" in rag("--add", "m", "--span", KEYS, code=2)
    rag("--add", "m", "--question", "How often is the key rotated?", "--span", KEYS)
    assert requests() == []


def test_what_cannot_be_done_says_why(bench: Workbench) -> None:
    """No feedback at all, a request nobody rated, options that do not go together."""
    assert "no feedback in 30 days" in rag()
    rated(bench, "a", "Where do the bees live?")
    assert "nobody has rated" in rag("--add", "a", "--must-refuse", code=2)
    assert "two decisions" in rag("--add", "a", "--dismiss", "a", code=2)
    assert "go with --add" in rag("--answer", "x", code=2)
    rated(bench, "b", "When does it close?", -1)
    assert "measures nothing" in rag("--add", "b", code=2)


def test_on_a_terminal_it_asks(bench: Workbench) -> None:
    """One after the other: a wrong quote is refused and typed again, one is dismissed, and quitting leaves the rest."""
    for number, question in enumerate(("How often is the key rotated?", "Is the lift old?", "Who was here?")):
        rated(bench, f"r{number}", question, -1, age_days=1 + number, comment=f"no {number}")
    typed = [
        "a", "", "n", "90 days", "handbook.md::every 80 days by the platform team", "", "y",
        "", "n", "90 days", KEYS, "", "d", "q",
    ]  # fmt: skip
    master, slave = pty.openpty()
    env = os.environ | {"RAG_HOME": str(bench.settings.root), "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, "-m", "rag_platform.cli", "golden", "review"], stdin=slave, stdout=slave, stderr=slave, env=env
    )
    os.close(slave)
    shown = bytearray()
    try:
        for line in typed:
            _until_it_asks(master, shown)
            os.write(master, line.encode() + b"\n")
        _rest(master, shown)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    text = shown.decode()
    assert "most like it" in text and "added 1 to golden, dismissed 1" in text and "no 2" in text
    [case] = load(bench.settings.resolved_golden_dir / "golden.yaml").cases
    assert (case.case_id, case.answer) == ("feedback-r0", "90 days")
    assert requests() == ["r2"]


def _until_it_asks(terminal: int, shown: bytearray) -> None:
    """Read until the program stands behind a question: its prompts end with a colon and a blank."""
    start = len(shown)
    while not shown[start:].endswith(b": "):
        shown += os.read(terminal, 4096)


def _rest(terminal: int, shown: bytearray) -> None:
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            return
        if not data:
            return
        shown += data
