"""Notion as a source, against a double that replays its interface."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_platform.backends.sources import connector_name, document_url, open_source
from rag_platform.backends.sources.base import SourceConnector
from rag_platform.backends.sources.notion_blocks import render
from rag_platform.errors import ConfigurationError, DocumentError, IncompleteListing, LimitExceeded
from rag_platform.records import SourceItem, SourceSpec
from rag_platform.settings import Settings
from rag_platform_tests.backends.api_double import Asked, Reply
from rag_platform_tests.backends.notion_server import TOKEN, NotionDouble, block, text
from rag_platform_tests.contracts.record_sources import MB, RecordSourceContract


@pytest.fixture(scope="module")
def server() -> Iterator[NotionDouble]:
    double = NotionDouble()
    yield double
    double.close()


class Workspace:
    """The double, with pages that are shared directly."""

    token_variable = "TEAM_TOKEN"

    def __init__(self, double: NotionDouble, home: Path) -> None:
        self.double, self.home = double, home
        self.minute = 0

    def connect(
        self,
        *,
        allow_private: bool = True,
        timeout_s: float = 10.0,
        uri: str = "notion://",
        roots: Any = None,
        **fields: Any,
    ) -> SourceConnector:
        environ = {
            "RAG_HOME": str(self.home),
            "TEAM_TOKEN": TOKEN,
            "RAG_NOTION_URL": self.double.origin if allow_private else self.double.origin.replace("http:", "https:"),
            "RAG_NOTION_TIMEOUT_S": str(timeout_s),
            "RAG_NOTION_REQUESTS_PER_S": "2000",
            "RAG_ALLOW_PRIVATE_ADDRESSES": str(allow_private),
        }
        options = {"token_env": "TEAM_TOKEN", **({"roots": roots} if roots is not None else {})}
        return open_source(SourceSpec("notes", uri, options=options, **fields), Settings.from_env(environ))

    def connect_to_missing(self) -> SourceConnector:
        return self.connect(uri="notion://00000000000000000000000000000bad")

    def write(self, title: str, words: str) -> str:
        return uri_of(self.double.add_page(title, [block("paragraph", words)]))

    def edit(self, uri: str, words: str) -> None:
        self.minute += 1
        self.double.edit(self.id_of(uri), [block("paragraph", words)], f"2024-03-01T11:{self.minute:02}")

    def remove(self, uri: str) -> None:
        self.double.pages[self.id_of(uri)]["in_trash"] = True

    def move(self, uri: str) -> None:
        other = next(id_ for id_ in self.double.pages if id_ != self.id_of(uri))
        self.double.pages[self.id_of(uri)]["parent"] = {"type": "page_id", "page_id": other}
        self.double.blocks[other].append({**block("child_page", title="Moving"), "id": self.id_of(uri)})

    def id_of(self, uri: str) -> str:
        return next(id_ for id_ in self.double.pages if uri_of(id_) == uri)

    def of(self, uri: str) -> str:
        return f"/pages/{self.id_of(uri)}"

    def small_pages(self) -> None:
        self.double.limit = 2

    def expire_token(self) -> None:
        self.double.token = "another"

    def items(self, **arguments: Any) -> dict[str, SourceItem]:
        return {str(item.title): item for item in self.connect(**arguments).list()}


def uri_of(id_: str, folder: str = "pages") -> str:
    return f"{folder}/{id_.replace('-', '')}.md"


@pytest.fixture
def place(server: NotionDouble, tmp_path: Path) -> Iterator[Workspace]:
    server.reset()
    yield Workspace(server, tmp_path)
    server.reset()


class TestNotion(RecordSourceContract):
    """The promises of every connector to an API."""


# ── what is found ──


def test_what_the_search_does_not_know_is_found_by_walking(place: Workspace) -> None:
    """Only what is shared directly is sure to be in the search: pages in toggles, rows, pages in rows."""
    double = place.double
    top = double.add_page("Top")
    toggle = block(
        "toggle", "more", children=[block("column_list", children=[block("column", children=[block("divider")])])]
    )
    double.set_blocks(top, [toggle])
    hidden = double.add_page("In a toggle")
    double.blocks[toggle["id"]].append({**block("child_page", title="In a toggle"), "id": hidden})
    _, source = double.add_database("Tasks", in_page=top)
    row = double.add_page("A row", parent={"type": "data_source_id", "data_source_id": source})
    double.add_page("In the row", parent={"type": "page_id", "page_id": row})
    double.searchable = lambda found: found["id"] == top
    assert set(place.items()) == {"Top", "In a toggle", "Tasks", "A row", "In the row"}
    place.small_pages()
    assert set(place.items()) == {"Top", "In a toggle", "Tasks", "A row", "In the row"}


def test_roots_bound_the_source(place: Workspace) -> None:
    """By id, by address, as page, database or data source; nothing beside them."""
    double = place.double
    one, two = double.add_page("One"), double.add_page("Two")
    double.add_page("Below", parent={"type": "page_id", "page_id": one})
    database, source = double.add_database("Tasks")
    double.add_page("Row", parent={"type": "data_source_id", "data_source_id": source})
    assert set(place.items(uri=f"notion://{one}")) == {"One", "Below"}
    assert set(place.items(roots=[f"https://www.notion.so/team/Two-{two.replace('-', '')}?pvs=4"])) == {"Two"}
    for id_ in (database, source):
        assert set(place.items(roots=[id_.replace("-", "")])) == {"Tasks", "Row"}
    double.searchable = lambda found: False
    assert set(place.items(roots=[one, database])) == {"One", "Below", "Tasks", "Row"}
    double.pages[one]["in_trash"] = True
    with pytest.raises(IncompleteListing, match="bin"):
        place.items(roots=[one])


def test_the_walk_reads_only_what_was_edited(place: Workspace) -> None:
    """A second listing asks for no blocks; an edit costs those of its page, also in another process."""
    double = place.double
    top = double.add_page("Top", [block("toggle", "x", children=[block("paragraph", "y")])])
    double.add_page("Below", [block("paragraph", "z")], parent={"type": "page_id", "page_id": top})
    double.searchable = lambda found: found["id"] == top
    assert set(place.items()) == {"Top", "Below"}
    double.forget()
    assert set(place.items()) == {"Top", "Below"}
    assert not [p for p in double.paths() if "/blocks/" in p]
    double.add_page("New", parent={"type": "page_id", "page_id": top})
    double.pages[top]["last_edited_time"] = "2024-03-01T10:30:00.000Z"
    assert set(place.items()) == {"Top", "Below", "New"}
    (place.home / "sources" / "notes.notion.json").write_text("{broken")
    assert set(place.items()) == {"Top", "Below", "New"}


def test_what_the_listing_has_read_is_not_read_again(place: Workspace) -> None:
    """Fetching after a listing costs one look at each page."""
    uri = place.write("One", "words")
    source = place.connect()
    source.list()
    place.double.forget()
    assert source.fetch(uri, max_bytes=MB) == b"# One\n\nwords\n"
    assert len(place.double.paths()) == 1
    source.list()
    place.edit(uri, "other words")
    assert source.fetch(uri, max_bytes=MB) == b"# One\n\nother words\n"


def test_globs_see_the_title(place: Workspace) -> None:
    """As a name without folders."""
    place.write("Draft: one", "x")
    place.write("Notes 10/2024", "x")
    assert set(place.items(exclude=("Draft*",))) == {"Notes 10/2024"}
    assert set(place.items(include=("Notes 10_2024",))) == {"Notes 10/2024"}


def test_two_edits_in_one_minute(place: Workspace) -> None:
    """Notion's clock has minutes only: a token that is too fresh does not repeat, a settled one does."""
    uri = place.write("One", "first")
    now = datetime.datetime.now(datetime.UTC)
    id_ = place.id_of(uri)
    place.double.edit(id_, [block("paragraph", "second")], now.strftime("%Y-%m-%dT%H:%M"))
    source = place.connect()
    first = source.list()[0].change_token
    assert b"second" in (source.fetch(uri, max_bytes=MB) or b"")
    place.double.edit(id_, [block("paragraph", "third")], now.strftime("%Y-%m-%dT%H:%M"))
    assert b"third" in (source.fetch(uri, max_bytes=MB) or b"")
    assert source.list()[0].change_token != first
    settled = (now - datetime.timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M")
    place.double.edit(id_, [block("paragraph", "third")], settled)
    assert source.list()[0].change_token == source.list()[0].change_token


def test_a_partial_answer_is_an_incomplete_listing(place: Workspace) -> None:
    """Notion can say that it gave a part only; and it can say that there is more without saying where."""
    place.write("One", "x")
    part: dict[str, Any] = {"results": [], "has_more": False, "next_cursor": None}
    status = {"request_status": {"type": "incomplete", "incomplete_reason": "query_result_limit_reached"}}
    for answer in ({**part, **status}, {**part, "has_more": True}):
        place.double.fault = lambda asked, answer=answer: Reply(200, answer)
        with pytest.raises(IncompleteListing):
            place.items()


def test_a_page_that_goes_during_the_walk_stops_nothing(place: Workspace) -> None:
    """Its blocks are gone and so is it."""
    gone, kept = place.write("Gone", "x"), place.write("Kept", "x")
    id_ = place.id_of(gone)

    def going(asked: Asked) -> Reply | None:
        if asked.path.endswith(f"/blocks/{id_}/children"):
            place.double.blocks.pop(id_, None)
            place.double.pages.pop(id_, None)
        return None

    place.double.fault = going
    uris = [i.uri for i in place.connect().list()]
    assert kept in uris
    place.double.forget()
    assert [i.uri for i in place.connect().list()] == [kept]


def test_a_page_with_a_block_that_the_interface_refuses(place: Workspace) -> None:
    """It costs that page, and none below what was known of it."""
    top = place.double.add_page("Top", [block("paragraph", "x")])
    place.double.add_page("Below", parent={"type": "page_id", "page_id": top})
    place.double.searchable = lambda found: found["id"] == top
    assert set(place.items()) == {"Top", "Below"}
    place.double.pages[top]["last_edited_time"] = "2024-03-01T10:30:00.000Z"
    refusal = {"object": "error", "code": "validation_error", "message": "Block type ai_block is not supported"}
    place.double.fault = lambda a: Reply(400, refusal) if a.path.endswith(f"/blocks/{top}/children") else None
    assert set(place.items()) == {"Top", "Below"}
    with pytest.raises(DocumentError, match="400"):
        place.connect().fetch(uri_of(top), max_bytes=MB)


def test_rows_carry_their_properties(place: Workspace) -> None:
    """As text in the page, choices as tags; a long one is read to its end."""
    _, source = place.double.add_database("Tasks")
    people = [{"object": "user", "name": f"P{n:02}"} for n in range(30)]
    row = place.double.add_page(
        "Fix it",
        [block("paragraph", "How.")],
        parent={"type": "data_source_id", "data_source_id": source},
        State={"id": "s", "type": "status", "status": {"name": "Open"}},
        Tags={"id": "t", "type": "multi_select", "multi_select": [{"name": "bug"}, {"name": "api"}]},
        Due={"id": "d", "type": "date", "date": {"start": "2024-05-01", "end": "2024-05-03"}},
        Note={"id": "n", "type": "rich_text", "rich_text": text("two\nlines")},
        Cost={"id": "c", "type": "number", "number": 0},
        Sure={"id": "b", "type": "checkbox", "checkbox": False},
        Sum={"id": "f", "type": "formula", "formula": {"type": "string", "string": "high"}},
        Roll={"id": "r", "type": "rollup", "rollup": {"type": "array", "array": [{"type": "number", "number": 2}]}},
        Key={"id": "k", "type": "unique_id", "unique_id": {"prefix": "OPS", "number": 7}},
        Who={"id": "w", "type": "people", "people": people[:25]},
        Empty={"id": "e", "type": "url", "url": None},
        Links={"id": "l", "type": "relation", "relation": [{"id": "x"}]},
        Edited={"id": "z", "type": "last_edited_time", "last_edited_time": "2024-03-01T10:00:00.000Z"},
    )
    place.double.property_values[row, "w"] = [{"type": "people", "people": p} for p in people]
    item = place.items(tags=("team",))["Fix it"]
    assert item.tags == ("Open", "api", "bug", "team")
    names = ", ".join(p["name"] for p in people)
    assert (place.connect().fetch(item.uri, max_bytes=MB) or b"").decode() == (
        f"# Fix it\n\n- Cost: 0\n- Due: 2024-05-01 to 2024-05-03\n- Key: OPS-7\n- Note: two lines\n- Roll: 2\n"
        f"- State: Open\n- Sum: high\n- Sure: no\n- Tags: bug, api\n- Who: {names}\n\nHow.\n"
    )
    described = place.items()["Tasks"]
    assert (place.connect().fetch(described.uri, max_bytes=MB) or b"").decode() == (
        "# Tasks\n\nAbout Tasks.\n\n- Name: title\n- State: status (Open, Done)\n"
    )


# ── blocks ──


def shown(*blocks: dict[str, Any]) -> str:
    return render(blocks)


def test_lists_nest(place: Workspace) -> None:
    """Numbers count and start anew; what lies in an item is indented."""
    inner = block(
        "bulleted_list_item", "b", children=[block("code", "x = 1", language="python"), block("paragraph", "after")]
    )
    got = shown(
        block("numbered_list_item", "one"),
        block("numbered_list_item", "two\nlines", children=[inner]),
        block("paragraph", "between"),
        block("numbered_list_item", "one again"),
        block("to_do", "done", checked=True),
        block("to_do", "open", checked=False),
        block("toggle", "more", children=[block("paragraph", "inside")]),
    )
    assert got == (
        "1. one\n2. two\n    lines\n    - b\n        ```python\n        x = 1\n        ```\n\n        after\n\n"
        "between\n\n1. one again\n- [x] done\n- [ ] open\n- more\n    inside"
    )


def test_every_kind_of_block_gives_its_text(place: Workspace) -> None:
    """Headings below the title, quotes, callouts, code, tables, formulas, links, files, columns, copies."""
    row = [block("table_row", cells=[text("A|B"), text("C")]), block("table_row", cells=[text("1"), text("2\n3")])]
    id_ = "0123abcd-0000-4000-8000-000000000001"
    blocks = [
        block("heading_1", "One", children=[block("paragraph", "toggled")]),
        block("heading_3", "Three"),
        block("quote", "said\nso", children=[block("paragraph", "by her")]),
        block("callout", "mind", icon={"type": "emoji", "emoji": "💡"}),
        block("code", "a ``` b", language="plain text", caption=text("a caption")),
        block("equation", expression="e=mc^2"),
        block("table", children=row, has_column_header=True),
        block("bookmark", url="https://x.test/a(b)", caption=text("a [mark]")),
        block("image", type="external", external={"url": "https://x.test/p.png"}, caption=[]),
        block("file", type="file", file={"url": "https://s3.test/f?X-Amz-Signature=1"}, name="f.pdf", caption=text("the file")),
        block("column_list", children=[block("column", children=[block("paragraph", "left")]), block("column", children=[block("paragraph", "right")])]),
        block("synced_block", synced_from=None, children=[block("paragraph", "synced")]),
        {**block("child_page", title="Sub"), "id": id_},
        block("link_to_page", type="page_id", page_id=id_),
        block("divider"),
        block("table_of_contents"),
        block("breadcrumb"),
        block("brand_new", "of the future", children=[block("paragraph", "and inside")]),
        block("meeting_notes", title=text("Standup")),
        block("unsupported"),
        block("paragraph", ""),
    ]  # fmt: skip
    link = "https://www.notion.so/0123abcd000040008000000000000001"
    assert shown(*blocks).split("\n\n") == [
        "## One", "toggled", "#### Three", "> said\n> so\n>\n> by her", "> 💡 mind", "````\na ``` b\n````", "a caption",
        "$$\ne=mc^2\n$$", "| A\\|B | C |\n|---|---|\n| 1 | 2 3 |", r"[a \[mark\]](https://x.test/a(b%29)",
        "[Image: p.png](https://x.test/p.png)", "[File: the file]", "left", "right", "synced", f"[Sub]({link})",
        f"[Linked page]({link})", "---", "of the future", "and inside", "Standup",
        "<!-- a Notion block of type unsupported without text -->",
    ]  # fmt: skip


def test_rich_text(place: Workspace) -> None:
    """Marks touch their words, mentions are names, links have addresses, and text starts no other block."""
    spans = [
        *text("Plain "), *text("bold ", bold=True), *text("too", bold=True), *text(" and "), *text("both", bold=True, italic=True),
        *text(" gone", strikethrough=True), *text(" x=`1`", code=True),
        {"type": "mention", "plain_text": "@Ada", "href": None, "annotations": {}},
        {"type": "mention", "plain_text": "Sub page", "href": "/0123abcd", "annotations": {}},
        {"type": "equation", "plain_text": "x^2", "equation": {"expression": "x^2"}, "annotations": {}},
    ]  # fmt: skip
    assert shown(block("paragraph", rich_text=spans)) == (
        "Plain **bold too** and ***both*** ~~gone~~ ``x=`1```@Ada[Sub page](https://www.notion.so/0123abcd)$x^2$"
    )
    escaped = shown(block("paragraph", "# no heading\n- no item\n1. no number\n---\n```\nfine <!-- kept -->"))
    assert escaped == "\\# no heading\n\\- no item\n\\1. no number\n\\---\n\\```\nfine &lt;!-- kept -->"


def test_a_copy_whose_original_is_not_shared(place: Workspace) -> None:
    """Its content may not be seen; the rest of the page is read."""
    copy = {**block("synced_block", synced_from={"block_id": "x"}), "has_children": True}
    id_ = place.double.add_page("One", [copy, block("paragraph", "rest")])
    assert place.connect().fetch(uri_of(id_), max_bytes=MB) == b"# One\n\nrest\n"


def test_a_page_nested_without_an_end(place: Workspace) -> None:
    """Limits, not endless requests."""
    id_ = place.double.add_page("One", [block("toggle", "x", children=[block("paragraph", "y")])])
    inner = place.double.blocks[id_][0]["id"]
    place.double.blocks[inner] = [place.double.blocks[id_][0]]
    with pytest.raises(LimitExceeded, match="levels"):
        place.connect().fetch(uri_of(id_), max_bytes=MB)


# ── addresses and settings ──


def test_the_kind_is_in_the_address() -> None:
    """And a page's own address can be given back."""
    assert connector_name("notion://") == "notion"
    id_ = "0123abcd000040008000000000000001"
    assert document_url(SourceSpec("n", "notion://"), f"pages/{id_}.md") == f"https://www.notion.so/{id_}"
    assert document_url(SourceSpec("n", "notion://"), f"databases/{id_}.md") is None


@pytest.mark.parametrize(
    ("uri", "options", "words"),
    [
        ("notion://my-page", {}, "no id of Notion's"),
        ("notion://a/b", {}, "option roots"),
        ("notion://?q=1", {}, "notion://ID"),
        ("notion://", {"roots": "x"}, "list of ids"),
        ("notion://", {"root": ["x"]}, "unknown option 'root'"),
        ("notion://", {"token_env": "OTHER_TOKEN"}, "set OTHER_TOKEN"),
    ],
)
def test_what_cannot_work_is_refused_before_any_request(uri: str, options: dict[str, Any], words: str) -> None:
    """With the cure."""
    with pytest.raises(ConfigurationError, match=words):
        open_source(SourceSpec("n", uri, options=options), Settings.from_env({"RAG_NOTION_TOKEN": "t"}))


def test_a_token_does_not_travel_in_the_clear() -> None:
    """Nor does a token with a line break get into a header."""
    for environ, words in (
        ({"RAG_NOTION_TOKEN": "t", "RAG_NOTION_URL": "http://api.notion.test"}, "https"),
        ({"RAG_NOTION_TOKEN": "t\n"}, "line break"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            open_source(SourceSpec("n", "notion://"), Settings.from_env(environ))
