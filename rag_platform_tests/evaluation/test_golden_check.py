"""Gold spans in the corpus as it is stored, and the commands around them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rag_platform.cli import app
from rag_platform.evaluation import imports
from rag_platform.evaluation.corpus import check_spans
from rag_platform.evaluation.golden import GoldenCase, GoldSpan, load
from rag_platform.evaluation.metrics.answers import contains
from rag_platform.evaluation.shipped import demo_set, install_demo_set
from rag_platform.ingestion.stages.parse import parse
from rag_platform.ingestion.stages.snapshot import snapshot
from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import SourceSpec
from rag_platform_tests import harness

ROOT = Path(__file__).parents[2]
KEY = "The key of the machine room is kept by the night porter."
DRILL = "The restore drill took 47 minutes from the first command to the first result."
PAY = "The on-call supplement is 640 euro a week."


def case(case_id: str, *spans: tuple[str, str] | tuple[str, str, str], **more: Any) -> GoldenCase:
    return GoldenCase(case_id, f"Question {case_id}?", "Answer.", tuple(GoldSpan(*s) for s in spans), **more)


def read_sources(bench: Workbench, specs: list[SourceSpec], run_id: str) -> None:
    """Bring parsed text up to the sources, without chunks, vectors or an index: that is all a check reads."""
    for spec in specs:
        bench.ledger.sources.register(spec, "command")
    snapshot(bench, specs, bench.bucket_names, run_id=run_id, approve_mass_change=True)
    parse(bench, bench.bucket_names, run_id=run_id)


@pytest.fixture
def tree(tmp_path: Path) -> harness.Tree:
    tree = harness.Tree(tmp_path / "docs")
    tree.become({"notice.md": f"# Notice\n\n{KEY}\n", "drill.md": f"# Drill\n\n{DRILL}\n", "bad.pdf": b"%PDF-1.7 no"})
    return tree


@pytest.fixture
def bench(tmp_path: Path, tree: harness.Tree, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workbench]:
    """A home with a public source and one for the group hr; commands see its settings too."""
    monkeypatch.setenv("RAG_OCR", "off")
    secret = harness.Tree(tmp_path / "secret")
    secret.write("pay.md", PAY + "\n")
    with Workbench(harness.settings(tmp_path / "home")) as opened:
        read_sources(opened, [tree.spec(), secret.spec("hr", acl=("hr",))], "r1")
        yield opened


def test_quotes_are_found_where_they_stand(bench: Workbench) -> None:
    """White space aside, in the document that the span names, of the source that it names if it names one."""
    wrapped = KEY.replace(" is ", "\n   is ")
    cases = [
        case("a", ("notice.md", wrapped), ("drill.md", "47 minutes", "docs")),
        case("b", ("pay.md", PAY), groups=("hr",)),
    ]
    assert [(f.case_id, f.state, f.detail) for f in check_spans(bench, cases)] == [
        ("a", "found", ""),
        ("a", "found", ""),
        ("b", "found", ""),
    ]
    assert check_spans(bench, [GoldenCase("r", "?", None, (), must_refuse=True)]) == []


def test_what_a_reader_may_not_see_is_hidden(bench: Workbench) -> None:
    """A question can never be answered when its reader may not read the document: another group, another tenant."""
    cases = [case("public", ("pay.md", PAY)), case("tenant", ("notice.md", KEY), tenant="acme")]
    group, tenant = check_spans(bench, cases)
    assert (group.state, tenant.state) == ("hidden", "hidden")
    assert "readable for hr of tenant default only" in group.detail and "tenant default only" in tenant.detail


def test_a_quote_that_moved_is_followed(bench: Workbench, tree: harness.Tree) -> None:
    """A renamed file, a sentence that now stands in another document, another source: the new place is named, one that
    the reader may read before one that they may not."""
    tree.rename("notice.md", "archive/notice-1997.md")
    read_sources(bench, [tree.spec()], "r2")
    renamed, sourced, secret = check_spans(
        bench,
        [case("a", ("notice.md", KEY)), case("b", ("drill.md", DRILL, "wiki")), case("c", ("notice.md", PAY))],
    )
    assert renamed.state == "moved" and renamed.now == GoldSpan("archive/notice-1997.md", KEY, "docs")
    assert sourced.state == "moved" and sourced.now == GoldSpan("drill.md", DRILL, "docs")
    assert secret.state == "moved" and "readable for hr" in secret.detail


def test_a_quote_that_is_gone_says_why(bench: Workbench, tree: harness.Tree) -> None:
    """The sentence was changed (what is there now is shown), the document was never there, or could not be read; an
    old version that is no longer live does not count."""
    tree.write("drill.md", f"# Drill\n\n{DRILL.replace('47', '52')}\n")
    read_sources(bench, [tree.spec()], "r2")
    changed, unlike, missing, unread = check_spans(
        bench,
        [
            case("a", ("drill.md", DRILL)),
            case("b", ("drill.md", "Penguins eat fish.")),
            case("c", ("none.md", "Nobody wrote this.")),
            case("d", ("bad.pdf", "Nobody read this.")),
        ],
    )
    assert [f.state for f in (changed, unlike, missing, unread)] == ["gone"] * 4
    assert changed.detail.endswith(f"most like it: {DRILL.replace('47', '52')}")
    assert unlike.detail == "the document does not say so any more"
    assert missing.detail == "there is no such document"
    assert "could not be read" in unread.detail


def test_many_quotes_are_searched_for_at_once(bench: Workbench, tree: harness.Tree) -> None:
    """An imported set of hundreds of quotes finds each of them, short ones too, and none that is not there."""
    lines = [f"Crane {n} lifts {n * 7} tons on pier {n % 5}." for n in range(300)]
    tree.write("cranes.md", "\n\n".join(lines))
    read_sources(bench, [tree.spec()], "r2")
    there = [case(f"t{n}", ("elsewhere.md", line if n % 10 else f"Crane {n}")) for n, line in enumerate(lines)]
    gone = [case(f"g{n}", ("elsewhere.md", f"{line} Not!")) for n, line in enumerate(lines)]
    findings = {f.case_id: f for f in check_spans(bench, [*there, *gone])}
    assert {findings[c.case_id].state for c in there} == {"moved"}
    assert {findings[c.case_id].state for c in gone} == {"gone"}


def test_all_of_squad_is_found_in_its_articles(shared_data: Path, tmp_path: Path) -> None:
    """The 10,570 questions of SQuAD, imported as paragraphs of their own, find their sentences in whole articles."""
    folder = shared_data / "squad"
    if not (folder / "articles").is_dir():
        pytest.skip(f"{folder} is not here")
    imported = imports.read(folder)
    with Workbench(harness.settings(tmp_path / "home")) as bench:
        read_sources(bench, [SourceSpec("squad", str(folder / "articles"))], "r1")
        findings = check_spans(bench, imported.cases)
    assert len(imported.cases) == len(findings) == 10_570
    assert {f.state for f in findings} == {"moved"}


# ── commands ───────────────────────────────────────────────────────────────────────────────────


def rag(*arguments: str, code: int = 0) -> Any:
    """Run `rag golden …` in this process on RAG_HOME; return what it printed as JSON, else as text without line breaks."""
    result = CliRunner().invoke(app, ["golden", *arguments])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if "--json" in arguments and result.stdout else " ".join(result.output.split())


def test_a_question_is_added_listed_and_checked(bench: Workbench, tree: harness.Tree) -> None:
    """`add` looks first; `list` counts; `check` exits with 3 once the corpus no longer says so, and names the place."""
    assert "no golden sets" in rag("list")
    added = rag("add", "Who keeps the key?", "--answer", "The night porter", "--span", f"notice.md::{KEY}", "--json")
    rag("add", "What is the supplement?", "--span", f"pay.md::{PAY}", "--group", "hr", "--tag", "pay", "--tag", "hr")
    rag("add", "What is the supplement?", "--must-refuse", "--tag", "pay")
    path = Path(added["path"])
    assert path == bench.settings.root / "golden" / "golden.yaml" and len(load(path).cases) == 3
    assert load(path).cases[0].answer == "The night porter"
    [row] = rag("list", "--json")
    assert (row["cases"], row["must_refuse"], row["spans"], row["tags"]) == (3, 1, 2, {"pay": 2, "hr": 1})
    assert next(c["question"] for c in rag("list", "golden", "--json")) == "Who keeps the key?"
    assert "(must refuse)" in rag("list", "golden") and "default" in rag("list")
    assert "all where the set says" in rag("check")

    tree.rename("notice.md", "moved.md")
    read_sources(bench, [tree.spec()], "r2")
    [report] = rag("check", "golden", "--json", code=3)
    assert (report["found"], report["moved"], report["gone"], report["hidden"]) == (1, 1, 0, 0)
    assert report["findings"][0]["now"] == {"uri": "moved.md", "source": "docs"}
    assert "moved to moved.md (source docs)" in rag("check", code=3)


def test_a_wrong_question_is_not_added(bench: Workbench) -> None:
    """A quote that is not there (exit code 3), a span without a quote, a contradiction, a name that is no file: nothing is
    written, and the message says the cure. `--unchecked` adds without a look."""
    assert "most like it" in rag("add", "How long?", "--span", f"drill.md::{DRILL.replace('47', '99')}", code=3)
    refused = rag("add", "Who?", "--span", f"pay.md::{PAY}", "--json", code=3)
    assert (refused["added"], refused["findings"][0]["state"]) == (False, "hidden")
    for arguments, says in (
        (["Who?", "--span", "notice.md: KEY"], "two colons"),
        (["Who?"], "measures nothing"),
        (["Who?", "--must-refuse", "--answer", "me"], "neither an answer nor spans"),
        ([" ", "--answer", "me"], "the question is empty"),
        (["Who?", "--answer", "me", "--set", "../x"], "cannot be named"),
    ):
        assert says in rag("add", *arguments, code=2)
    assert not (bench.settings.root / "golden").exists()
    rag("add", "Who?", "--span", "later.md::It will say so.", "--unchecked")
    assert "gone" in rag("check", code=3)
    assert "has a case" in rag("add", "Who?", "--answer", "me", code=2)
    assert "there: golden" in rag("check", "other", code=2)


def squad(path: Path, *contexts: tuple[str, str]) -> Path:
    """Write a SQuAD file with a question for each (paragraph, answer)."""
    paragraphs = [
        {
            "context": c,
            "qas": [{"id": f"q{n}", "question": f"Q{n}?", "answers": [{"text": a, "answer_start": c.index(a)}]}],
        }
        for n, (c, a) in enumerate(contexts)
    ]
    path.write_text(json.dumps({"data": [{"title": "Harbour", "paragraphs": paragraphs}]}))
    return path


def test_an_import_finds_its_quotes_in_the_corpus(bench: Workbench, tmp_path: Path) -> None:
    """Whatever the documents are called here, spans point to where the quotes stand; questions about other documents,
    or about what their reader may not read, are left out."""
    path = squad(tmp_path / "dev.json", (KEY, "night porter"), ("Penguins eat fish.", "fish"), (PAY, "640 euro"))
    done = rag("import", str(path), "--set", "squad", "--json")
    assert done["cases"] == 1 and sum(done["skipped"].values()) == 2
    [kept] = load(Path(done["path"])).cases
    assert kept.spans == (GoldSpan("notice.md", KEY, "docs"),)
    assert "all where the set says" in rag("check", "squad")
    assert "choose another name" in rag("import", str(path), "--set", "squad", code=2)
    other = squad(tmp_path / "other.json", ("Penguins eat fish.", "fish"))
    assert "ingest its documents first" in rag("import", str(other), code=2)
    assert rag("import", str(other), "--unchecked", "--json")["cases"] == 1


def test_an_import_writes_the_documents_of_its_set(bench: Workbench, tmp_path: Path) -> None:
    """With --documents a set brings its corpus: ingested, every quote is found."""
    path = squad(tmp_path / "dev.json", ("Penguins eat fish. They swim.", "fish"), ("Seals eat squid.", "squid"))
    folder = tmp_path / "corpus"
    assert rag("import", str(path), "--documents", str(folder), "--json")["documents"] == 1
    read_sources(bench, [SourceSpec("squad", str(folder))], "r2")
    assert "2 quotes, all where the set says" in rag("check", "dev")
    assert "not an empty folder" in rag("import", str(path), "--set", "b", "--documents", str(folder), code=2)


# ── the demo's set ─────────────────────────────────────────────────────────────────────────────


def test_the_demo_set_is_installed_once(tmp_path: Path) -> None:
    """`rag demo` copies it with its comments, and never over one that somebody may have worked on."""
    settings = harness.settings(tmp_path / "home")
    path = install_demo_set(settings)
    assert path is not None and path.read_text().startswith("# The golden set of the demo") and load(path) == demo_set()
    path.write_text("cases: []\n")
    assert install_demo_set(settings) is None and load(path).cases == ()


def test_the_demo_set_asks_all_kinds_of_questions() -> None:
    """At least sixty, among them unanswerable, multi-document, numeric and acronym ones, and pairs that are answered
    for one reader and refused to another. A reference answer is a phrase of its quote."""
    cases = demo_set().cases
    count = {tag: sum(tag in c.tags for c in cases) for tag in ("unanswerable", "multi", "numeric", "acronym")}
    assert len(cases) >= 60 and count["unanswerable"] >= 8 and count["multi"] >= 6
    assert count["numeric"] >= 15 and count["acronym"] >= 8
    for multi in (c for c in cases if "multi" in c.tags):
        assert len({s.uri for s in multi.spans}) >= 2, multi.case_id
    answered = {c.question for c in cases if "hr" in c.groups and not c.must_refuse}
    refused = {c.question for c in cases if "hr" not in c.groups and c.must_refuse}
    assert len(answered & refused) >= 4
    for one in cases:
        assert one.must_refuse == (not one.spans), one.case_id
        if one.spans and "multi" not in one.tags:
            assert contains(" ".join(s.quote for s in one.spans), one.answer or "") == 1, one.case_id


@pytest.mark.slow
def test_every_quote_of_the_demo_set_stands_in_the_demo_corpus(tmp_path: Path) -> None:
    """The shipped set is right about the shipped corpus, read as the demo reads it: PDF, Office, mail, and the scan."""
    from rag_platform.commands.demo import demo_sources

    sources = demo_sources(ROOT / "docs")
    assert [s.acl for s in sources] == [("public",), ("hr",)]
    with Workbench(harness.settings(tmp_path / "home", RAG_OCR="auto", RAG_PARSE_WORKERS="2")) as bench:
        read_sources(bench, sources, "r1")
        findings = check_spans(bench, demo_set().cases)
    assert [(f.case_id, f.state, f.span.uri, f.detail) for f in findings if f.state != "found"] == []
