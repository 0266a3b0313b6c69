"""``rag evaluate`` as people and programs run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rag_platform.cli import app
from rag_platform.evaluation.golden import GoldenSet, save
from rag_platform.ingestion.workbench import Workbench
from rag_platform_tests import harness
from rag_platform_tests.evaluation.corpora import CASES, case, ingested


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RAG_HOME with the small corpus and two golden sets; one case of the second cannot be answered rightly."""
    folder = tmp_path_factory.mktemp("evaluate")
    settings = harness.settings(folder / "home")
    with Workbench(settings) as bench:
        ingested(bench, folder)
    save(settings.resolved_golden_dir / "small.yaml", GoldenSet("small", CASES[:3]))
    wrong = replace(CASES[3], case_id="wrong", answer="never before noon")
    save(settings.resolved_golden_dir / "wrong.yaml", GoldenSet("wrong", (CASES[4], wrong)))
    return settings.root


@pytest.fixture
def here(home: Path) -> Callable[..., Result]:
    """Runs the command in this process: RAGAS takes ten seconds to load."""

    def run(*options: str, code: int = 0, at: Path = home) -> Result:
        result = CliRunner().invoke(
            app, ["evaluate", *options], env={"RAG_HOME": str(at), "RAG_EMBED_WORKERS": "1", "COLUMNS": "200"}
        )
        assert result.exit_code == code, result.output
        return result

    return run


def test_it_prints_metrics_with_their_counts_and_the_worst_questions(here: Callable[..., Result]) -> None:
    """A table for each set; what went well is not among the worst."""
    shown = here("--golden", "wrong")
    assert "wrong: 2 questions, release r-" in shown.stdout
    [line] = [row for row in shown.stdout.splitlines() if "contains_gold" in row and "0.500" in row]
    assert "0.000 – 1.000" in line
    assert "When does the roof garden open?" in shown.stdout and "Albatross" not in shown.stdout
    assert "evaluate: 2/2" in shown.stderr


def test_json_holds_every_set_case_and_count(here: Callable[..., Result]) -> None:
    """All sets without --golden; a second run gives the same, from the ledger."""
    report = json.loads(here("--json").stdout)
    by_name = {e["golden_set"]: e for e in report["evaluations"]}
    assert set(by_name) == {"small", "wrong"} and report["release_id"].startswith("r-")
    small = by_name["small"]
    assert small["metrics"]["recall_at_10"] == {
        "metric": "recall_at_10", "mean": 1.0, "low": 1.0, "high": 1.0,
        "scored": 3, "nan": 0, "failed": 0, "empty": 0, "missing": 0,
    }  # fmt: skip
    assert [c["case_id"] for c in small["cases"]] == ["keys", "drill", "cold"]
    assert small["cases"][0]["answer_uris"] == ["handbook.md"] and small["cases"][0]["failure"] is None
    assert json.loads(here("--json").stdout) == report


def test_a_file_can_be_evaluated_where_it_is(here: Callable[..., Result], tmp_path: Path) -> None:
    """By its path; a question that cannot be asked is a failed case and exit code 1."""
    save(tmp_path / "mine.yaml", GoldenSet("mine", (CASES[0], case("endless", "very long " * 500, "x"))))
    failed = here("--golden", str(tmp_path / "mine.yaml"), "--json", code=1)
    assert "1 of 2 questions got no answer" in failed.stderr and '"failure": "ValueError"' in failed.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--golden", "nonesuch"), "there are small, wrong"),
        (("--release", "r-nonesuch"), "there is no release 'r-nonesuch'; there are r-"),
        (("--golden", "/nonesuch.yaml"), "does not exist"),
    ],
)
def test_a_mistake_names_what_there_is(here: Callable[..., Result], options: tuple[str, ...], message: str) -> None:
    """Exit code 2, and the cure."""
    assert message in " ".join(here(*options, code=2).stderr.split())


def test_an_empty_home_says_what_to_do(here: Callable[..., Result], tmp_path: Path) -> None:
    """No golden set; then no index."""
    assert "rag golden" in here(code=2, at=tmp_path / "empty").stderr
    save(tmp_path / "empty" / "golden" / "one.yaml", GoldenSet("one", CASES[:1]))
    assert "rag ingest" in here(code=2, at=tmp_path / "empty").stderr
