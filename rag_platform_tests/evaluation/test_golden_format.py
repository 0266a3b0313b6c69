"""Golden sets as files: what is refused, what is kept, and how cases are added."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_platform.errors import ConfigurationError
from rag_platform.evaluation.golden import (
    GoldenCase,
    GoldenSet,
    GoldSpan,
    append,
    golden_sets,
    load,
    new_case_id,
    parse,
    save,
    set_path,
)
from rag_platform.evaluation.golden_format import render
from rag_platform.settings import Settings

FILE = """\
# Asked by the people of the harbour office.
gate:
  recall_at_5: 0.8   # the least that we accept

cases:
  - id: key
    question: Who keeps the key?
    answer: The night porter.
    spans:
      - uri: notice.pdf
        quote: The key is kept
          by the night porter.
        source: docs
    tags: [fact]

  # nobody may know
  - question: What is the password?
    must_refuse: true
    tenant: acme
    groups: [staff, public]
"""


def case(case_id: str = "one", question: str = "Why?", **more: object) -> GoldenCase:
    return GoldenCase(case_id, question, **({"answer": "So.", "spans": ()} | more))  # type: ignore[arg-type]


def test_a_file_becomes_cases_with_defaults(tmp_path: Path) -> None:
    """Everything that a file says is read, what it leaves out is usual, and a case without an id gets a stable one."""
    path = tmp_path / "harbour.yaml"
    path.write_text(FILE)
    golden = load(path)
    key, password = golden.cases
    assert golden.name == "harbour" and golden.gate == {"recall_at_5": 0.8}
    assert key == GoldenCase(
        "key",
        "Who keeps the key?",
        "The night porter.",
        (GoldSpan("notice.pdf", "The key is kept by the night porter.", "docs"),),
        ("fact",),
    )
    assert (key.tenant, key.groups, key.must_refuse) == ("default", ("public",), False)
    assert (password.must_refuse, password.tenant, password.groups) == (True, "acme", ("staff", "public"))
    assert password.case_id == new_case_id("What is the password?", "acme", ("public", "staff")) != new_case_id("x")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it needs a list `cases:`"),
        ("- question: a", "it needs a list `cases:`"),
        ("cases: {a: 1}", "`cases` must be a list"),
        ("cases: []\nquestions: []", "does not know 'questions'; it knows gate, cases"),
        ("gate: strict\ncases: []", "`gate` must be a mapping"),
        ("cases:\n  - question: a: b", "line 2: mapping values are not allowed here"),
        ("cases:\n  - hello", "case 1: must be a mapping that starts with `question"),
        ("cases:\n  - answer: a", "case 1: `question` must be a text and not empty"),
        ("cases:\n  - id: k\n    question: ' '", "case 1 (k): `question` must be a text"),
        ("cases:\n  - question: q\n    answr: a", "case 1: does not know 'answr'; it knows id, question, answer"),
        ("cases:\n  - question: q", "case 1: measures nothing; give it spans or an answer, or `must_refuse: true`"),
        ("cases:\n  - question: q\n    answer: 1973", "case 1: `answer` is a number for YAML; write it in quotes"),
        ("cases:\n  - question: q\n    answer: no", "`answer` must be a text"),
        ("cases:\n  - question: q\n    answer: a\n    must_refuse: true", "has neither an answer nor spans"),
        ("cases:\n  - question: q\n    must_refuse: maybe", "`must_refuse` must be true or false"),
        ("cases:\n  - question: q\n    answer: a\n    tags: fact", "`tags` must be a list such as [one, two]"),
        ("cases:\n  - question: q\n    spans: a.md", "`spans` must be a list"),
        ("cases:\n  - question: q\n    spans: [a.md]", "case 1, span 1: must be a mapping with `uri` and `quote`"),
        ("cases:\n  - question: q\n    spans: [{uri: a.md}]", "case 1, span 1: `quote` must be a text"),
        ("cases:\n  - question: q\n    spans: [{uri: a, quote: b, page: 1}]", "span 1: does not know 'page'"),
        ("cases:\n  - question: q\n    spans: [{uri: a, quote: b}, {uri: a, quote: b}]", "listed twice"),
        ("cases:\n  - question: q\n    answer: a\n  - question: q\n    answer: b", "cases 1 and 2 have the same id"),
    ],
)
def test_an_error_names_the_file_the_case_and_the_cure(text: str, says: str) -> None:
    """Nothing is passed over or guessed: what is wrong in a file is one line that a person can act on."""
    with pytest.raises(ConfigurationError) as caught:
        parse(text, name="x", origin="golden/x.yaml")
    assert str(caught.value).startswith("golden/x.yaml: ") and says in str(caught.value)


def test_files_that_cannot_be_read_are_errors(tmp_path: Path) -> None:
    """A missing file, bytes that are no text, and a set that would be passed over for its name."""
    settings = Settings.from_env({"RAG_HOME": str(tmp_path)})
    assert golden_sets(settings) == []
    with pytest.raises(ConfigurationError, match="does not exist"):
        load(tmp_path / "none.yaml")
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="save it as UTF-8"):
        golden_sets(settings)
    (tmp_path / "golden" / "a.yaml").unlink()
    (tmp_path / "golden" / "b.yml").write_text(FILE)
    with pytest.raises(ConfigurationError, match="rename it"):
        golden_sets(settings)


@pytest.mark.parametrize("name", ["", "a/b", "..", "../x", ".hidden", "a\\b"])
def test_a_set_cannot_be_named_out_of_its_folder(name: str, tmp_path: Path) -> None:
    """The name of a set is the name of a file in the folder of the golden sets, and of nothing else."""
    with pytest.raises(ConfigurationError, match="cannot be named"):
        set_path(Settings.from_env({"RAG_HOME": str(tmp_path)}), name)


def test_sets_are_where_the_setting_says(tmp_path: Path) -> None:
    """RAG_GOLDEN_DIR names the folder; its sets come by name."""
    settings = Settings.from_env({"RAG_HOME": str(tmp_path), "RAG_GOLDEN_DIR": str(tmp_path / "kept in git")})
    for name in ("b", "a"):
        save(set_path(settings, name), GoldenSet(name, (case(),)))
    assert [golden.name for golden in golden_sets(settings)] == ["a", "b"]
    assert sorted(p.name for p in (tmp_path / "kept in git").iterdir()) == ["a.yaml", "b.yaml"]


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t:#-'\"{}[]&*!|>%@`"), min_size=1)
TEXTS = WORDS.map(str.strip).filter(bool)


@given(TEXTS, TEXTS, st.lists(st.tuples(TEXTS, TEXTS), unique=True, max_size=3), st.lists(TEXTS, max_size=2))
def test_what_is_written_is_read_back(
    question: str, answer: str, spans: list[tuple[str, str]], tags: list[str]
) -> None:
    """Whatever words a case holds (line breaks, quotes, YAML's own marks), the file gives them back, and its
    fingerprint stays."""
    cases = (
        case("a", question, answer=answer, spans=tuple(GoldSpan(*s) for s in spans), tags=tuple(tags)),
        case("b", question, answer=None, spans=(), must_refuse=True, tenant=answer, groups=tuple(tags)),
    )
    golden = GoldenSet("x", cases, {"recall_at_5": 0.5})
    again = parse(render(golden), name="x", origin="x")
    assert again == golden and again.fingerprint == golden.fingerprint


def test_the_fingerprint_is_of_what_is_measured() -> None:
    """Another order or another gate measures the same; another word, quote or reader does not."""
    one, two = case("one"), case("two", "Where?", spans=(GoldSpan("a.md", "here"),))
    base = GoldenSet("x", (one, two)).fingerprint
    assert GoldenSet("y", (two, one), {"recall_at_5": 1}).fingerprint == base
    others = [
        GoldenSet("x", (one,)),
        GoldenSet("x", (one, case("two", "Where?", spans=(GoldSpan("a.md", "there"),)))),
        GoldenSet("x", (one, case("two", "Where?", spans=(GoldSpan("a.md", "here"),), groups=("hr",)))),
    ]
    assert len({base, *(o.fingerprint for o in others)}) == 4


@pytest.mark.parametrize("text", [FILE, FILE.replace("\n  ", "\n").replace("recall", "  recall")])
def test_a_new_case_leaves_the_rest_of_the_file_as_it_was(text: str, tmp_path: Path) -> None:
    """Comments, order and line breaks of what people wrote survive, whether they indent lists or not."""
    path = tmp_path / "harbour.yaml"
    path.write_text(text)
    before = load(path)
    append(path, [case("new", "Since when?")])
    assert path.read_text().startswith(text.rstrip())
    assert load(path).cases == (*before.cases, case("new", "Since when?"))
    with pytest.raises(ConfigurationError, match="has a case 'new' already"):
        append(path, [case("new", "Since when?")])
    assert [p.name for p in tmp_path.iterdir()] == ["harbour.yaml"]


def test_a_case_is_added_to_any_golden_set(tmp_path: Path) -> None:
    """A missing file is made; one whose cases do not stand at its end is written anew and loses no case."""
    path = tmp_path / "new.yaml"
    append(path, [case("a")])
    path.write_text(path.read_text() + "gate: {recall_at_5: 0.5}\n")
    assert append(path, [case("b")]) == load(path) == GoldenSet("new", (case("a"), case("b")), {"recall_at_5": 0.5})
    path.write_text("cases: []\n")
    append(path, [case("c")])
    assert load(path).cases == (case("c"),)
    with pytest.raises(ConfigurationError, match="measures nothing"):
        append(path, [case("d", answer=None)])
