"""The documentation is the demo's corpus: it must be true, whole, and made by the committed script."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import io
import re
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rag_platform.backends.embedders.recorded import FORMER
from rag_platform.backends.llms.openai_compatible import Settings as LLMSettings
from rag_platform.settings import Settings
from serve.settings import HttpSettings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if p.parent.name != "personnel")
OFFICE = {".docx", ".pptx", ".xlsx"}
MAX_PIXEL_DIFFERENCE = 2.0


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("reportlab", reason="the script needs the dev extra")
    spec = importlib.util.spec_from_file_location("build_formats", DOCS / "build_formats.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("docs")
    script.build(target)
    return target


def test_the_committed_files_are_what_the_script_makes(built: Path) -> None:
    """Every handout and broken file equals the script's output: Office files member by member, the scan
    pixel by pixel within the noise of image libraries, all others to the byte."""
    made = {p.relative_to(built) for p in built.rglob("*") if p.is_file()}
    committed = {p.relative_to(DOCS) for folder in ("handouts", "broken") for p in (DOCS / folder).iterdir()}
    assert committed - made == {Path("broken/README.md")}
    assert made <= committed
    for name in sorted(made):
        new, old = (built / name).read_bytes(), (DOCS / name).read_bytes()
        if new != old:
            assert _content(name, new) == _content(name, old), f"{name}: run `python docs/build_formats.py`"


def test_the_script_gives_equal_bytes_twice(script: ModuleType) -> None:
    """Nothing in a generated file depends on the clock, on a random id or on an order."""
    for name, make in script.FILES.items():
        assert make() == make(), name


def test_the_corpus_is_small_whole_and_mostly_readable() -> None:
    """At least 40 documents, below 1.5 MB of generated files, and too few broken ones to fail the demo."""
    documents = [p for p in DOCS.rglob("*") if p.is_file() and p.suffix != ".py"]
    broken = [p for p in (DOCS / "broken").iterdir() if p.suffix != ".md"]
    assert len(documents) >= 40
    assert sum(p.stat().st_size for p in documents if p.suffix != ".md") < 1_500_000
    assert len(broken) / len(documents) < Settings.from_env({}).max_dead_letter_share / 2


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(DOCS).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """A link names a file that exists, and a fragment a heading that is there."""
    for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", _without_code(page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{page.name}: {target}"
        if fragment:
            assert fragment in _anchors(file), f"{page.name}: {target}"


def test_every_page_is_reached_from_the_index() -> None:
    """No page is an orphan: following links from index.md reaches all of them, apart from broken/README.md."""
    seen: set[Path] = set()
    waiting = [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)#\s]+)", _without_code(page.read_text("utf-8")))
        waiting += [(page.parent / link).resolve() for link in links if ":" not in link]
    assert set(PAGES) - seen == {DOCS / "broken" / "README.md"}


def test_every_setting_is_documented_with_its_default() -> None:
    """settings.md has one row for each setting, with the default and the sentence of the code, and no other."""
    text = (DOCS / "settings.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `RAG_")]
    expected = {_row(prefix, f) for prefix, cls in _settings_classes() for f in _public_fields(cls)}
    assert set(rows) == expected
    assert len(rows) == len(expected)


def test_no_page_names_a_setting_that_does_not_exist() -> None:
    """Every RAG_ variable that a page mentions exists in the code."""
    known = {f"{prefix}{f.name.upper()}" for prefix, cls in _settings_classes() for f in _public_fields(cls)}
    prefixes = {prefix for prefix, _ in _settings_classes()} | {"RAG_LLM_FALLBACK_", "RAG_RERANK_FALLBACK_"}
    for page in PAGES:
        for name in re.findall(r"\bRAG_[A-Z0-9_]+", page.read_text("utf-8")):
            usual = "RAG_" + name.removeprefix(FORMER) if name.startswith(FORMER) else name
            assert usual in known or usual in prefixes, f"{page.name}: {name}"


def test_every_command_that_a_page_shows_exists() -> None:
    """`rag NAME` in code, and its long options, are known to the command line; cli.md shows every command."""
    from typer.main import get_command

    from rag_platform.cli import app

    commands = _commands(get_command(app))
    for page in PAGES:
        for line in _code(page.read_text("utf-8")):
            if line.startswith(("kubectl ", "helm ")):  # `rag` is the namespace there, but in what runs in a pod
                line = line.partition(" -- ")[2]
            for words in re.findall(r"(?:^|[ /])rag ((?:[a-z-]+ ?){1,2}[^|;#`]*)", line):
                _check_command(page, words.split(), commands)
    reference = (DOCS / "cli.md").read_text("utf-8")
    for name in commands:
        assert f"rag {name}" in reference, f"cli.md does not show rag {name}"


def test_every_asset_check_job_and_schedule_is_documented() -> None:
    """dagster.md names everything that the definitions hold."""
    from rag_platform.definitions import defs

    repository = defs.get_repository_def()
    text = (DOCS / "dagster.md").read_text("utf-8")
    names = {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()}
    names |= {key.name for key in repository.asset_graph.asset_check_keys}
    names |= {name for name in repository.job_names if not name.startswith("__")}
    names |= {s.name for s in (*repository.schedule_defs, *repository.sensor_defs)}
    assert [n for n in sorted(names) if f"`{n}`" not in text] == []


def test_every_direct_dependency_has_a_line() -> None:
    """dependencies.md has one row for each requirement of pyproject.toml, and no other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        requirements += extra
    wanted = sorted(re.match(r"[A-Za-z0-9_.-]+", r)[0] for r in requirements)  # type: ignore[index]
    text = (DOCS / "dependencies.md").read_text("utf-8")
    assert sorted(re.findall(r"^\| `([A-Za-z0-9_.-]+)` \|.*MB \|$", text, re.MULTILINE)) == wanted


def test_handouts_hold_facts_that_no_page_has(script: ModuleType) -> None:
    """What the demo asks of the PDF, the deck, the mail and the scan stands in that file alone."""
    facts = {
        "02:40 UTC": script.HANDBOOK,
        "5 hours and 20 minutes": script.DECK,
        "extension 2291": script.ACCESS_NOTICE,
        "12 minutes": script.ON_CALL,
        "INC-2026-017": script.INCIDENT_MAIL,
        "195.1": script.CAPACITY,
        "plans/current": script.STATUS_PAGE,
    }
    pages = "\n".join(p.read_text("utf-8") for p in PAGES)
    for fact, home in facts.items():
        assert fact in str(home)
        assert fact not in pages, fact
        others = [str(h) for f, h in facts.items() if f != fact]
        assert not any(fact in other for other in others), fact


# ── what the tests compare ─────────────────────────────────────────────────────────────────────


def _content(name: Path, data: bytes) -> Any:
    """Return what must be equal when the bytes are not: other builds of zlib or an image library."""
    if name.suffix in OFFICE:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {m: archive.read(m) for m in archive.namelist()}
    if name.name == "access-notice-scan.pdf":
        return _Scan(data)
    return data


class _Scan:
    """A scanned page, equal to another one when the pixels hardly differ."""

    def __init__(self, data: bytes) -> None:
        import numpy as np
        import pypdfium2

        document = pypdfium2.PdfDocument(data)
        try:
            self.pixels = np.asarray(document[0].render(scale=1).to_pil().convert("L"), dtype=np.float32)
        finally:
            document.close()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Scan) or self.pixels.shape != other.pixels.shape:
            return False
        return float(abs(self.pixels - other.pixels).mean()) <= MAX_PIXEL_DIFFERENCE

    __hash__ = None  # type: ignore[assignment]


def _settings_classes() -> Iterator[tuple[str, type]]:
    yield "RAG_", Settings
    package = ROOT / "rag_platform"
    for path in sorted((package / "backends").rglob("*.py")):
        found = re.search(r'(?:vendor\(Settings, |prefix: str = |PREFIX = )"(RAG_\w+_)"', path.read_text("utf-8"))
        if found:
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield found[1], importlib.import_module(module).Settings
    yield "RAG_HTTP_", HttpSettings
    yield "RAG_JUDGE_", LLMSettings


def _public_fields(cls: type) -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(cls) if not f.metadata.get("internal")]


def _row(prefix: str, field: dataclasses.Field[Any]) -> str:
    default = "–" if field.default in (None, "") else f"`{field.default}`"
    doc = field.metadata["doc"].replace("|", "\\|")
    return f"| `{prefix}{field.name.upper()}` | {default} | {doc} |"


def _code(markdown: str) -> Iterator[str]:
    for block in re.findall(r"^```\w*\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL))


def _without_code(markdown: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL))


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ +(.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}


def _commands(group: Any, above: str = "") -> dict[str, set[str]]:
    """Return full command name → its long options."""
    found: dict[str, set[str]] = {}
    for name in group.list_commands(None):
        command, full = group.get_command(None, name), f"{above}{name}"
        if hasattr(command, "list_commands"):
            found |= _commands(command, f"{full} ")
        else:
            found[full] = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")}
    return found


def _check_command(page: Path, words: list[str], commands: dict[str, set[str]]) -> None:
    groups = {name.split()[0] for name in commands if " " in name}
    if words[0] in ("--help", "--version"):
        return
    if words[0] in groups and (len(words) == 1 or not re.fullmatch(r"[a-z-]+", words[1])):
        return  # the group as such
    name = " ".join(words[:2]) if words[0] in groups else words[0]
    assert name in commands, f"{page.name}: rag {' '.join(words)}"
    for option in words:
        if option.startswith("--"):
            known = {*commands[name], "--help"}
            assert re.sub(r"[^a-z-].*", "", option) in known, f"{page.name}: rag {name} {option}"
