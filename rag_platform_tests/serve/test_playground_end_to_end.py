"""The playground page in a real browser, against the real API over documents that were really ingested."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import Browser, expect

from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger import open_ledger
from rag_platform.query.service import QueryService
from rag_platform_tests import harness
from rag_platform_tests.serve import playground_flows as flows
from rag_platform_tests.serve.api_server import ApiServer
from serve.documents import DocumentTexts

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not flows.CHROMIUM.exists(), reason=f"{flows.CHROMIUM} is not installed"),
]

MOON = "# Moon 🌙\n\nIntroduction.\n\n# Orbit\n\nThe moon circles the earth in 27 days. It is made of rock.\n"
QUESTION = "In how many days does the moon circle the earth?"
UNANSWERABLE = "Who painted the ceiling of the Sistine Chapel?"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with flows.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API over one document."""
    root = tmp_path_factory.mktemp("real")
    settings = harness.settings(root / "home")
    tree = harness.Tree(root / "documents")
    tree.write("moon.md", MOON)
    with Workbench(settings) as bench:
        harness.ingest(bench, [tree.spec("space")], "run-1")
    ledger = open_ledger(settings, lazy=True)
    try:
        with ApiServer(settings, QueryService(settings, document_text=DocumentTexts(settings, ledger))) as running:
            yield running
    finally:
        ledger.close()


def test_a_reader_finds_the_source_in_its_document(real: ApiServer, browser: Browser) -> None:
    """Asked on the page, answered with a quote, which the panel marks where it stands, with what is around it."""
    with flows.visit(browser, real.url) as v:
        v.open()
        flows.answer_is_cited_and_its_source_opens(v, QUESTION)
        v.turn().locator("a.cite").first.click()
        expect(v.marked()).to_contain_text("27 days")
        expect(v.page.get_by_role("dialog")).to_contain_text("Introduction.")
        expect(v.page.get_by_role("dialog")).to_contain_text("run-1")
        flows.everyone_can_read_it(v)


def test_the_keyboard_is_enough(real: ApiServer, browser: Browser) -> None:
    """The whole way, rating included, without a pointer; asked again it comes from the cache."""
    with flows.visit(browser, real.url, size=flows.PHONE, scheme="dark") as v:
        flows.everything_from_the_keyboard(v.open(), QUESTION)
        v.page.reload()
        v.ask(QUESTION)
        expect(v.answered()).to_contain_text("From the cache")


def test_what_the_documents_do_not_say_is_refused(real: ApiServer, browser: Browser) -> None:
    """A question without an answer is told so, and a filter that cannot be read is told in words."""
    with flows.visit(browser, real.url) as v:
        v.expected = ["status of 400"]
        v.open().ask(UNANSWERABLE)
        expect(v.answered()).to_contain_text("No answer in the documents")
        v.page.get_by_role("button", name="Options").click()
        v.page.get_by_label("Filter").fill("nonsense")
        expect(v.ask(QUESTION)).to_contain_text("filter: ")
