"""Confluence as a source, against a double that replays the interfaces of Cloud and of Data Center."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from rag_platform.backends.sources import connector_name, document_url, open_source
from rag_platform.backends.sources.base import SourceConnector
from rag_platform.errors import ConfigurationError, DependencyError, DocumentError, IncompleteListing
from rag_platform.records import SourceItem, SourceSpec
from rag_platform.settings import Settings
from rag_platform_tests.backends.api_double import Asked, Reply
from rag_platform_tests.backends.confluence_server import EMAIL, TOKEN, ConfluenceDouble, File
from rag_platform_tests.contracts.record_sources import MB, RecordSourceContract


@pytest.fixture(scope="module")
def server() -> Iterator[ConfluenceDouble]:
    double = ConfluenceDouble()
    yield double
    double.close()


@pytest.fixture
def confluence(server: ConfluenceDouble) -> Iterator[ConfluenceDouble]:
    server.reset()
    yield server
    server.reset()


class Wiki:
    """One deployment of the double. Pages have a parent each, so that a move changes it."""

    token_variable = "WIKI_TOKEN"

    def __init__(self, double: ConfluenceDouble, deployment: str) -> None:
        self.double, self.deployment = double, deployment
        self.url = double.cloud_url if deployment == "cloud" else double.center_url

    def connect(
        self,
        *,
        allow_private: bool = True,
        timeout_s: float = 10.0,
        space: str = "?space=ENG",
        options: dict[str, Any] | None = None,
        **fields: Any,
    ) -> SourceConnector:
        given = {"deployment": self.deployment, "email": EMAIL, "token_env": "WIKI_TOKEN", **(options or {})}
        environ = {
            "WIKI_TOKEN": TOKEN,
            "RAG_CONFLUENCE_TIMEOUT_S": str(timeout_s),
            "RAG_CONFLUENCE_REQUESTS_PER_S": "2000",
            "RAG_ALLOW_PRIVATE_ADDRESSES": str(allow_private),
        }
        uri = self.url + space
        if not allow_private:
            uri = uri.replace("http://", "https://")
        return open_source(SourceSpec("wiki", uri, options=given, **fields), Settings.from_env(environ))

    def connect_to_missing(self) -> SourceConnector:
        return self.connect(space="?space=NONE")

    def write(self, title: str, text: str) -> str:
        id_ = str(1000 + len(self.double.pages))
        self.double.add(id_, title, f"<p>{text}</p>")
        return f"pages/{id_}.html"

    def edit(self, uri: str, text: str) -> None:
        page = self.double.pages[self.of(uri)]
        page.body, page.version = f"<p>{text}</p>", page.version + 1

    def remove(self, uri: str) -> None:
        self.double.pages[self.of(uri)].status = "trashed"

    def move(self, uri: str) -> None:
        others = [p for p in self.double.pages if p != self.of(uri)]
        self.double.pages[self.of(uri)].parent = others[0]

    def of(self, uri: str) -> str:
        return uri.removeprefix("pages/").removesuffix(".html")

    def small_pages(self) -> None:
        self.double.limit = 2

    def expire_token(self) -> None:
        self.double.token = "another"

    def items(self, **arguments: Any) -> dict[str, SourceItem]:
        return {item.uri: item for item in self.connect(**arguments).list()}


@pytest.fixture(params=["cloud", "data_center"])
def place(request: pytest.FixtureRequest, confluence: ConfluenceDouble) -> Wiki:
    return Wiki(confluence, request.param)


class TestConfluence(RecordSourceContract):
    """The promises of every connector to an API, on both deployments."""


# ── what is listed ──


def test_labels_titles_times_and_attachments(place: Wiki) -> None:
    """Labels join the source's tags; attachments are documents of their own below their page."""
    files = [File("att7", "Plan (v2).PDF", b"%PDF-1"), File("att8", "photo.png", b"png", "image/png")]
    place.double.add("11", "Home", "<p>x</p>", labels=["b", "a"], files=files)
    items = place.items(tags=("wiki",))
    assert list(items) == ["pages/11.html", "pages/11/attachments/att7.pdf"]
    page, attached = items.values()
    assert (page.title, page.tags, page.modified_at) == ("Home", ("a", "b", "wiki"), 1772359200.0)
    assert (attached.title, attached.tags, attached.size) == ("Plan (v2).PDF", ("a", "b", "wiki"), 6)
    assert place.connect().fetch(attached.uri, max_bytes=6) == b"%PDF-1"
    assert set(place.items(options={"attachments": "all"})) - set(items) == {"pages/11/attachments/att8.png"}
    assert set(place.items(options={"attachments": False})) == {"pages/11.html"}


def test_many_attachments_are_all_listed(place: Wiki) -> None:
    """More than come with their page."""
    place.double.add("11", "Home", "<p>x</p>", files=[File(f"att{n}", f"{n}.txt", b"x") for n in range(100, 160)])
    assert len(place.items()) == 61


def test_blog_posts_only_when_asked_for(place: Wiki) -> None:
    """Under a uri of their own."""
    place.double.add("11", "Home", "<p>x</p>")
    place.double.add("12", "News", "<p>The news.</p>", kind="blogpost")
    assert set(place.items()) == {"pages/11.html"}
    assert set(place.items(options={"blog_posts": True})) == {"pages/11.html", "blogposts/12.html"}
    assert b"The news." in (place.connect().fetch("blogposts/12.html", max_bytes=MB) or b"")


def test_spaces_listed_or_all(place: Wiki) -> None:
    """All means all but personal ones; a named space that cannot be seen is no empty space."""
    for n, space in enumerate(("ENG", "HR", "~me"), 11):
        place.double.add(str(n), f"Of {space}", "<p>x</p>", space=space)
    assert set(place.items(space="")) == {"pages/11.html", "pages/12.html"}
    assert set(place.items(space="?space=HR")) == {"pages/12.html"}
    assert set(place.items(space="", options={"spaces": ["ENG", "~me"]})) == {"pages/11.html", "pages/13.html"}
    with pytest.raises(IncompleteListing, match="'NONE'"):
        place.items(space="?space=ENG&space=NONE")


def test_globs_see_the_titles(place: Wiki) -> None:
    """Space, titles from above, title; a slash in a title is no folder."""
    place.double.add("11", "Handbook", "<p>x</p>")
    place.double.add("12", "Archive", "<p>x</p>", parent="11")
    place.double.add("13", "Old/new", "<p>x</p>", parent="12", files=[File("att1", "a.pdf", b"x")])
    assert set(place.items(exclude=("ENG/Handbook/Archive/**",))) == {"pages/11.html", "pages/12.html"}
    assert set(place.items(include=("*.pdf",))) == {"pages/13/attachments/att1.pdf"}
    assert set(place.items(include=("/ENG/Handbook/Archive/Old_new",))) == {"pages/13.html"}


# ── who may read it ──


def test_restrictions_become_access_lists(place: Wiki) -> None:
    """Groups and people by name, mapped where the source says so; none: the source's own list."""
    place.double.add("11", "Open", "<p>x</p>")
    place.double.add(
        "12", "Closed", "<p>x</p>", groups=["hr", "staff"], users=["u-ada"], files=[File("att1", "a.txt", b"x")]
    )
    acls = {uri: item.acl for uri, item in place.items(acl=("engineering",)).items()}
    closed = ("confluence:group:hr", "confluence:group:staff", "confluence:user:u-ada")
    assert acls == {"pages/11.html": None, "pages/12.html": closed, "pages/12/attachments/att1.txt": closed}
    tables = {"groups": {"hr": ["people", "board"]}, "users": {"u-ada": "ada"}, "space_acl": {"ENG": ["eng"]}}
    acls = {uri: item.acl for uri, item in place.items(options=tables).items()}
    assert acls["pages/11.html"] == ("eng",)
    assert acls["pages/12.html"] == ("ada", "board", "confluence:group:staff", "people")


def test_a_changed_restriction_leaves_token_and_bytes(place: Wiki) -> None:
    """Only the metadata moves: nothing is fetched again."""
    place.double.add("11", "Home", "<p>x</p>")
    before = place.items()["pages/11.html"]
    data = place.connect().fetch("pages/11.html", max_bytes=MB)
    place.double.pages["11"].groups.append("hr")
    after = place.items()["pages/11.html"]
    assert (before.acl, after.acl) == (None, ("confluence:group:hr",))
    assert before.change_token == after.change_token
    assert place.connect().fetch("pages/11.html", max_bytes=MB) == data


def test_restrictions_are_inherited(place: Wiki) -> None:
    """Who reads a page must pass every restriction above it."""
    double = place.double
    double.add("11", "Top", "<p>x</p>", groups=["hr"])
    double.add("12", "Below", "<p>x</p>", parent="11")
    double.add("13", "Both", "<p>x</p>", parent="12", groups=["hr", "staff"])
    double.add("14", "Person", "<p>x</p>", parent="12", users=["u-ada", "u-bob"])
    acls = {uri: item.acl for uri, item in place.items().items()}
    assert acls["pages/11.html"] == acls["pages/12.html"] == acls["pages/13.html"] == ("confluence:group:hr",)
    # Ada is in hr, Bob is not.
    assert acls["pages/14.html"] == ("confluence:user:u-ada",)
    double.groups["hr"].append("u-bob")
    assert place.items()["pages/14.html"].acl == ("confluence:user:u-ada", "confluence:user:u-bob")
    del double.groups["hr"]
    assert place.items()["pages/14.html"].acl == ()  # nobody, rather than everybody


def test_a_restriction_too_long_for_the_listing_is_read_whole(place: Wiki) -> None:
    """More people than come with the page."""
    place.double.add("11", "Home", "<p>x</p>", users=[f"u{n:03}" for n in range(450)])
    acl = place.items()["pages/11.html"].acl
    assert acl is not None and len(acl) == 450


def test_what_the_listing_does_not_say_is_asked_for(place: Wiki) -> None:
    """A content without its restriction inside never counts as unrestricted."""
    place.double.add("11", "Home", "<p>x</p>", groups=["hr"])

    def stripped(asked: Asked) -> Reply | None:
        if not asked.path.endswith(("/content/search", "/content/scan")):
            return None
        reply = place.double.answer(asked)
        for row in reply.body["results"]:
            row.pop("restrictions", None)
        return reply

    place.double.fault = stripped
    assert place.items()["pages/11.html"].acl == ("confluence:group:hr",)


def test_an_ancestor_that_cannot_be_seen_lets_nobody_in(place: Wiki) -> None:
    """It may be restricted."""
    place.double.add("12", "Below", "<p>x</p>", parent="11")
    if place.deployment == "cloud":
        assert place.items()["pages/12.html"].acl == ()


def test_folders_of_cloud_hand_their_restrictions_down(confluence: ConfluenceDouble) -> None:
    """A folder is no page and is in no listing; what lies in it inherits all the same."""
    confluence.add("20", "Folder", "", kind="folder", groups=["hr"])
    confluence.add("21", "In it", "<p>x</p>", parent="20")
    items = Wiki(confluence, "cloud").items()
    assert {uri: item.acl for uri, item in items.items()} == {"pages/21.html": ("confluence:group:hr",)}


def test_pages_that_the_search_index_of_cloud_lacks(confluence: ConfluenceDouble) -> None:
    """The search lags: such a page is listed with labels, restriction and attachments all the same."""
    confluence.add("21", "New", "<p>x</p>", labels=["l"], groups=["hr"], files=[File("att1", "a.txt", b"x")])
    confluence.indexed = lambda page: False
    items = Wiki(confluence, "cloud").items()
    assert [(i.tags, i.acl) for i in items.values()] == [(("l",), ("confluence:group:hr",))] * 2


# ── a listing that is disturbed ──


@pytest.mark.parametrize("scan", [True, False])
def test_a_deletion_during_the_listing_hides_no_other_page(confluence: ConfluenceDouble, scan: bool) -> None:
    """With offsets, what follows a deleted row moves up and one is skipped."""
    place = Wiki(confluence, "data_center")
    confluence.scan, confluence.limit = scan, 2
    for n in range(11, 20):
        confluence.add(str(n), f"Page {n}", "<p>x</p>")
    calls = 0

    def disturb(path: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            confluence.pages["11"].status = "trashed"

    confluence.before_results = disturb
    assert set(place.items()) >= {f"pages/{n}.html" for n in range(12, 20)}


def test_a_circle_of_result_pages_ends(place: Wiki) -> None:
    """A link to the same page again is no endless listing."""
    for n in range(11, 16):
        place.double.add(str(n), f"Page {n}", "<p>x</p>")
    place.small_pages()

    def circle(asked: Asked) -> Reply | None:
        if "cursor" not in asked.query:
            return None
        reply = place.double.answer(asked)
        path = asked.path if "/api/v2/" in asked.path else asked.path.removeprefix("/wiki").removeprefix("/confluence")
        reply.body["_links"]["next"] = f"{path}?{urlencode(asked.query)}"
        return reply

    place.double.fault = circle
    with pytest.raises(IncompleteListing, match="circle"):
        place.items()


def test_the_token_goes_to_no_other_host(place: Wiki) -> None:
    """A next link elsewhere is refused; a download elsewhere goes without the login."""
    place.double.add("11", "Home", "<p>x</p>", files=[File("att1", "a.txt", b"x")])
    other = place.double.origin.replace("127.0.0.1", "localhost")
    place.double.fault = lambda a: Reply(200, {"results": [], "_links": {"next": f"{other}/x"}})
    with pytest.raises(IncompleteListing):
        place.items()

    def elsewhere(asked: Asked) -> Reply | None:
        if asked.headers["host"].startswith("localhost"):
            return Reply(200, b"from there")
        return Reply(302, b"", {"Location": f"{other}/media"}) if "/download/" in asked.path else None

    place.double.fault = elsewhere
    assert place.connect().fetch("pages/11/attachments/att1.txt", max_bytes=MB) == b"from there"
    assert "authorization" not in place.double.asked[-1].headers


def test_a_login_that_turns_anonymous_is_an_error(place: Wiki) -> None:
    """Confluence may treat a refused token as nobody and list what is public."""
    place.double.add("11", "Home", "<p>x</p>")
    place.double.fault = lambda a: Reply(200, {"type": "anonymous"}) if a.path.endswith("/current") else None
    with pytest.raises(IncompleteListing, match="logs nobody in"):
        place.items()
    refused = {"X-Seraph-LoginReason": "AUTHENTICATED_FAILED"}
    place.double.fault = lambda a: Reply(200, {"type": "known"}, refused)
    with pytest.raises(IncompleteListing, match="WIKI_TOKEN"):
        place.items()
    with pytest.raises(DependencyError, match="WIKI_TOKEN"):
        place.connect().fetch("pages/11.html", max_bytes=MB)


# ── what a page becomes ──


def test_a_page_is_html_with_the_names_of_who_is_mentioned(place: Wiki) -> None:
    """Users are looked up once; an unknown one is somebody."""
    key = "account-id" if place.deployment == "cloud" else "userkey"
    mention = "<ac:link><ri:user ri:{}='{}'/></ac:link>"
    body = f"<p>Ask {mention.format(key, 'u-ada')} or {mention.format(key, 'gone')}.</p>"
    place.double.add("11", "A & B", body)
    source = place.connect()
    assert b"<h1>A &amp; B</h1>\n<p>Ask <a>@Ada</a> or <a>@somebody</a>.</p>" in (
        source.fetch("pages/11.html", max_bytes=MB) or b""
    )
    place.double.forget()
    source.fetch("pages/11.html", max_bytes=MB)
    assert not [p for p in place.double.paths() if p.endswith("/user")]


def test_export_view_is_taken_as_it_is(place: Wiki) -> None:
    """What Confluence renders itself; the choice is part of the change token."""
    place.double.add("11", "Home", "<p>rendered</p>")
    source = place.connect(options={"body": "export_view"})
    assert b"<p>rendered</p>" in (source.fetch("pages/11.html", max_bytes=MB) or b"")
    assert source.list()[0].change_token != place.connect().list()[0].change_token


def test_no_other_uri_is_asked_for(place: Wiki) -> None:
    """Uris are ids: what is none is nothing of this source's."""
    source = place.connect()
    place.double.forget()
    for uri in ("pages/1/../2.html", "pages/x.html", "pages/1.html?x=1", "spaces/1.html", "pages/1/attachments/../x"):
        with contextlib.suppress(DocumentError):
            assert source.fetch(uri, max_bytes=MB) is None
    assert place.double.paths() == []


# ── addresses and settings ──


def test_the_kind_is_in_the_address() -> None:
    """``confluence+https`` is this connector, with the host in its place."""
    assert connector_name("confluence+https://acme.atlassian.net/wiki?space=ENG") == "confluence"
    spec = SourceSpec("w", "confluence+https://acme.atlassian.net/wiki/?space=ENG")
    assert document_url(spec, "pages/12.html") == "https://acme.atlassian.net/wiki/pages/viewpage.action?pageId=12"
    link = "https://acme.atlassian.net/wiki/pages/viewpageattachments.action?pageId=12"
    assert document_url(spec, "pages/12/attachments/att3.pdf") == link
    assert document_url(spec, "x") is None
    assert document_url(SourceSpec("d", "/docs"), "x.md") is None
    assert document_url(SourceSpec("h", "https://h.test/docs/"), "a b.md") == "https://h.test/docs/a%20b.md"
    assert document_url(SourceSpec("h", "https://h.test/a.md"), "a.md") == "https://h.test/a.md"


@pytest.mark.parametrize(
    ("uri", "options", "words"),
    [
        ("confluence://acme", {}, "confluence[+]https"),
        ("confluence+https://u:p@acme.test/wiki", {}, "without a login"),
        ("confluence+http://acme.test/wiki", {}, "others"),
        ("confluence+https://acme.test/wiki?page=1", {}, r"\?space=KEY"),
        ("confluence+https://acme.test/wiki", {"sapces": ["A"]}, "unknown option 'sapces'"),
        ("confluence+https://acme.test/wiki", {"body": "view"}, "storage, export_view"),
        ("confluence+https://acme.test/wiki", {"deployment": "server"}, "cloud, data_center"),
        ("confluence+https://acme.test/wiki", {"groups": ["a"]}, "mapping such as"),
        ("confluence+https://acme.test/wiki", {"spaces": "ENG"}, "list of texts"),
        ("confluence+https://acme.test/wiki", {"token_env": "OTHER_TOKEN"}, "OTHER_TOKEN"),
        ("confluence+https://acme.atlassian.net/wiki", {}, "RAG_CONFLUENCE_EMAIL"),
    ],
)
def test_what_cannot_work_is_refused_before_any_request(uri: str, options: dict[str, Any], words: str) -> None:
    """With the cure, and without a secret."""
    settings = Settings.from_env({"RAG_CONFLUENCE_TOKEN": "secret-token"})
    with pytest.raises(ConfigurationError, match=words) as caught:
        open_source(SourceSpec("w", uri, options=options), settings)
    assert "secret-token" not in str(caught.value)


def test_no_token_names_the_variable() -> None:
    """Before any request."""
    with pytest.raises(ConfigurationError, match="set RAG_CONFLUENCE_TOKEN"):
        open_source(SourceSpec("w", "confluence+https://acme.test/wiki"), Settings.from_env({}))
