"""``rag release``: what people see of releases, on two real ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rag_platform.cli import app
from rag_platform.evaluation import promotion
from rag_platform.evaluation.golden import GoldenSet, save
from rag_platform.ingestion.workbench import Workbench
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.evaluation.corpora import CASES, specs


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """A release that serves and a candidate with smaller chunks, whose settings are those of this process; the candidate has
    been examined."""
    home = tmp_path / "home"
    for name, value in {
        "RAG_HOME": str(home), "RAG_OCR": "off", "RAG_CHUNK_TOKENS": "60", "RAG_EMBED_WORKERS": "1", "RAG_PARSE_WORKERS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with Workbench(harness.settings(home)) as bench:
        harness.ingest(bench, specs(tmp_path), "r1")
        first = bench.release_id
    with Workbench(replace(harness.settings(home), chunk_tokens=60)) as bench:
        harness.ingest(bench, specs(tmp_path), "r2", gated=True)
        save(bench.settings.resolved_golden_dir / "small.yaml", GoldenSet("small", CASES[:3]))
        promotion.hold_exam(bench)
        yield first, bench.release_id


def a_document_comes(folder: Path) -> None:
    """One more, after the settings' release has taken over: the retired one does not learn of it."""
    docs = harness.Tree(folder / "docs")
    docs.write("later.md", "# Later\n\nThe later crane lifts nine tons.\n")
    with Workbench(Settings.from_env()) as bench:
        harness.ingest(bench, [docs.spec()], "r3", gated=True)


def rag(*arguments: str, code: int = 0) -> Any:
    """Run `rag release …` in this process; return what it printed as JSON, else as text without line breaks."""
    result = CliRunner().invoke(app, ["release", *arguments])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if "--json" in arguments and result.stdout else " ".join(result.output.split())


def test_list_and_show(releases: tuple[str, str]) -> None:
    """Which one serves, what it holds, how it was made, how it scores, and what was decided."""
    first, second = releases
    rows = {r["release_id"]: r for r in rag("list", "--json")}
    assert (rows[first]["state"], rows[second]["state"]) == ("serving", "candidate")
    assert (rows[first]["documents"], rows[second]["documents"]) == (4, 4)
    assert first in rag("list") and "candidate" in rag("list")
    shown = rag("show", "--json")
    assert shown["release_id"] == first and shown["decisions"][0]["reasons"] == ["the first release"]
    shown = rag("show", second, "--json")
    assert shown["evaluations"]["small"]["metrics"]["recall_at_10"]["mean"] == 1.0 and shown["decisions"] == []
    text = rag("show", second[:6])
    assert "60 tokens" in text and "4 documents" in text and "1.000" in text
    assert "there is no release 'nobody'" in rag("show", "nobody", code=2)
    assert "several releases begin with" in rag("show", "r", code=2)


def test_diff_names_what_differs(releases: tuple[str, str], tmp_path: Path) -> None:
    """The chunker and nothing else of the pipeline, the document that only one has, and the scores of both."""
    first, second = releases
    rag("promote", second)
    a_document_comes(tmp_path)
    found = rag("diff", first, "--json")
    assert found["releases"] == [first, second] and set(found["made_by"]) == {"chunker"}
    assert found["documents"] == {"only_in_the_first": [], "only_in_the_second": ["later.md"], "other_version": []}
    assert {s["golden_set"] for s in found["scores"]} == {"small"}
    assert {s["before"] for s in found["scores"] if s["metric"] == "recall_at_10"} == {"1.000"}
    text = rag("diff", first)
    assert "60 tokens" in text and "later.md" in text and "recall_at_10" in text
    assert "name another one" in rag("diff", second, code=2)


def test_promote_and_rollback(releases: tuple[str, str], tmp_path: Path) -> None:
    """Promotion holds the exam; a rollback says what the old index never read, which the next run brings; a demand nobody
    meets exits with 5 and names it."""
    first, second = releases
    done = rag("promote", second, "--json")
    assert (done["promoted"], done["before"], done["documents"], done["in_flight"]) == (True, first, 4, 0)
    a_document_comes(tmp_path)
    text = rag("rollback", "--reason", "readers complain")
    assert f"serving {first}" in text and "1 documents are served in the version" in text and "next run" in text
    with Workbench(Settings.from_env()) as bench:
        harness.ingest(bench, [harness.Tree(tmp_path / "docs").spec()], "r4", gated=True)
        assert "later.md" in harness.uris(bench)
    assert rag("show", second, "--json")["decisions"][0]["reasons"] == [f"instead of {second}: readers complain"]
    demanding = GoldenSet("small", CASES[:3], gate={"recall_at_10": {"min": 1.1}})
    save(Settings.from_env().resolved_golden_dir / "small.yaml", demanding)
    refused = rag("promote", second, code=5)
    assert "does not pass the gate" in refused and "small: recall_at_10 is 1.000, needed at least 1.100" in refused
    assert {r["release_id"]: r["state"] for r in rag("list", "--json")}[first] == "serving"
    assert rag("promote", second, "--force", "--json")["promoted"]
