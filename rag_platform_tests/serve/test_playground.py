"""The playground page in a real browser, against a scripted API."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import Browser, Route, expect

from rag_platform.query.answer import Answer, Degradation
from rag_platform.query.events import Final, Passages, TextDelta
from rag_platform_tests.serve import playground_flows as flows
from rag_platform_tests.serve.playground_flows import DESKTOP, PHONE, Visit
from rag_platform_tests.serve.playground_server import (
    Gate,
    PlaygroundServer,
    Script,
    answer,
    cite,
    json_reply,
    playground_server,
    problem,
    span_of,
    sse,
    stream,
)

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not flows.CHROMIUM.exists(), reason=f"{flows.CHROMIUM} is not installed"),
]

Open = Callable[..., AbstractContextManager[Visit]]

QUESTION = "How long does a replay take?"
QUOTE = "A replay takes as long as reading the document again."
CITED = cite(1, QUOTE)
SECOND = cite(2, "Nothing else is read.", title="Second guide", page=None, heading_path="")
ANSWER = answer(f"“{QUOTE}” [1] “Nothing else is read.” [2]", [CITED, SECOND])
SPAN = span_of(CITED, before="Above it.\n", lead="Before. ", tail=" Behind.", after="\nBelow it.")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with flows.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def _server() -> Iterator[PlaygroundServer]:
    with playground_server() as running:
        yield running


@pytest.fixture
def server(_server: PlaygroundServer) -> PlaygroundServer:
    """The API, which answers ``QUESTION`` from two guides."""
    _server.reset()
    _server.answers[QUESTION] = stream(ANSWER)
    _server.citations = {"chunk-1": SPAN, "chunk-2": span_of(SECOND, before="", lead="", tail="", after="")}
    return _server


@pytest.fixture
def window(browser: Browser, server: PlaygroundServer) -> Open:
    """Opens a window on the server; ``with window() as v: …``. See ``Visit.check`` for what every one asserts."""
    return partial(flows.visit, browser, server.url)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_an_answer_is_read_with_its_source(window: Open, server: PlaygroundServer, size: Any, scheme: str) -> None:
    """On every kind of screen: asked, answered, the source opened at its quote, all of it legible and reachable."""
    with window(size=size, scheme=scheme) as v:
        v.open()
        flows.everyone_can_read_it(v)
        flows.answer_is_cited_and_its_source_opens(v, QUESTION)
        v.turn().get_by_role("button", name="Details").click()
        expect(v.turn().get_by_role("row", name="rerank 96 ms")).to_be_visible()
        expect(v.turn().get_by_role("row", name="total 182 ms")).to_be_visible()
        flows.everyone_can_read_it(v)
        v.turn().locator("a.cite").nth(1).click()
        v.marked()
        flows.everyone_can_read_it(v)
        v.page.keyboard.press("Escape")
        v.page.get_by_role("button", name="Options").click()
        flows.everyone_can_read_it(v)
    [sent] = server.sent("/v1/query")
    assert sent.body == {"question": QUESTION, "history": [], "profile": "balanced", "stream": True}
    assert "authorization" not in {name.lower() for name in sent.headers}


def test_all_of_it_works_from_the_keyboard(window: Open) -> None:
    """Asking, reading a source, rating and the details need no pointer, and the focus is never lost."""
    with window() as v:
        flows.everything_from_the_keyboard(v.open(), QUESTION)


def test_a_finger_opens_a_source_without_a_preview(window: Open) -> None:
    """A tap on a number opens the panel over the whole phone; the preview is for pointers and keys."""
    with window(size=PHONE, touch=True) as v:
        v.open().ask(QUESTION)
        v.answered().locator("a.cite").first.tap()
        v.marked()
        expect(v.page.get_by_role("tooltip")).to_be_hidden()
        v.page.get_by_role("button", name="Close the source").tap()
        expect(v.page.get_by_role("dialog")).to_be_hidden()


def test_text_appears_while_it_is_written(window: Open, server: PlaygroundServer) -> None:
    """What has come is shown before the rest is there; the verified answer then replaces all of it."""
    gate = Gate()
    final = answer("It takes **one** run. [1]", [CITED], generator="gpt-5-mini")
    first = [
        sse(Passages(["Guide, part 1"], ["guides/part-1.md"])),
        gate,
        sse(TextDelta("It takes **tw")),
        second := Gate(),
    ]
    server.answers[QUESTION] = Script([*first, sse(TextDelta("o** runs. [1]")), sse(Final(final))])
    with window() as v:
        turn = v.open().ask(QUESTION)
        expect(turn.locator(".progress")).to_contain_text("Reading Guide, part 1")
        gate.open()
        expect(turn.locator(".answer")).to_have_text("It takes **tw")
        expect(v.page.get_by_role("button", name="Stop")).to_be_visible()
        second.open()
        expect(v.answered().locator(".answer")).to_have_text("It takes one run. 1")
        expect(turn.locator(".answer strong")).to_have_text("one")
        expect(turn.locator(".progress")).to_have_count(0)
        expect(v.page.get_by_role("button", name="Send", exact=True)).to_be_visible()


def test_a_byte_at_a_time_reads_like_all_at_once(window: Open, server: PlaygroundServer) -> None:
    """Pieces that cut through characters, CRLF and field names change nothing; comments and unknown events neither."""
    text = "Größe: 27 °C, 月が綺麗 👩‍🔬, naïve. [1]"
    said = answer(text, [CITED])
    wire = b"\xef\xbb\xbf: hello\r\n\r\nevent: news\r\ndata: {}\r\n\r\ndata: [DONE]\r\n\r\n" + b"".join(
        sse(e).replace(b"\n", b"\r\n") for e in (TextDelta(text[:9]), TextDelta(text[9:]), Final(said))
    )
    server.answers[QUESTION] = Script([wire[n : n + 1] for n in range(len(wire))])
    with window() as v:
        v.open().ask(QUESTION)
        expect(v.answered().locator(".answer")).to_have_text(text.replace("[1]", "1"))


def test_the_stream_is_parsed_alike_wherever_it_is_cut(window: Open) -> None:
    """Every way to cut a stream in two, with each of the three line ends, gives the same events."""
    script = """async ([wire]) => {
      const { EventParser } = await import("/ui/sse.js");
      const results = new Set();
      for (const end of ["\\n", "\\r", "\\r\\n"]) {
        const text = wire.replaceAll("|", end);
        for (let at = 0; at <= text.length; at++) {
          const parser = new EventParser();
          results.add(JSON.stringify([...parser.push(text.slice(0, at)), ...parser.push(text.slice(at))]));
        }
      }
      return [...results];
    }"""
    wire = ": ping||event: text|data: one|data:two|id: 7||data|retry: 9||event: lost||data:  x||event: text|data: unfinished"
    with window() as v:
        v.open()
        [events] = v.page.evaluate(script, [wire])
    assert msgspec.json.decode(events) == [
        {"event": "text", "data": "one\ntwo"},
        {"event": "message", "data": ""},
        {"event": "message", "data": " x"},
    ]


def test_stop_ends_the_question_and_the_servers_work(window: Open, server: PlaygroundServer) -> None:
    """Stopping closes the connection, keeps what came and calls it incomplete; it is not part of the conversation."""
    server.answers["slow"] = Script([sse(TextDelta("Half a")), Gate()])
    with window() as v:
        turn = v.open().ask("slow")
        expect(turn).to_contain_text("Half a")
        v.page.get_by_role("button", name="Stop").click()
        expect(turn).to_have_attribute("data-state", "stopped")
        expect(turn).to_contain_text("The text is incomplete")
        assert server.hung_up.wait(flows.WAIT_MS / 1000)
        v.ask(QUESTION)
        v.answered()
    assert [r.body["history"] for r in server.sent("/v1/query")] == [[], []]


def test_a_broken_stream_is_said_and_can_be_tried_again(window: Open, server: PlaygroundServer) -> None:
    """A connection that ends before the answer is no answer; trying again replaces the attempt."""
    server.answers[QUESTION] = [
        Script([sse(TextDelta("Half a"))], cut=True),
        Script([sse(TextDelta("Half"))]),
        stream(ANSWER),
    ]
    with window() as v:
        v.expected = ["ERR_INCOMPLETE_CHUNKED_ENCODING"]
        v.open().ask(QUESTION)
        for _ in range(2):  # cut within the body, then a body that ends too early
            expect(v.turn()).to_contain_text("The connection broke before the answer was complete.")
            v.turn().get_by_role("button", name="Try again").click()
        v.answered()
        expect(v.page.locator(".turn")).to_have_count(1)


def test_a_conversation_is_sent_with_the_next_question(window: Open, server: PlaygroundServer) -> None:
    """Follow-ups carry what was said; a new conversation carries nothing."""
    server.answers["And then?"] = stream(answer("Then it is indexed. [1]", [CITED]))
    with window() as v:
        v.open().ask(QUESTION)
        v.answered()
        v.ask("And then?")
        expect(v.page.locator(".turn[data-state=done]")).to_have_count(2)
        v.page.get_by_role("button", name="New conversation").click()
        expect(v.page.locator(".turn")).to_have_count(0)
        expect(v.page.get_by_label("Your question")).to_be_focused()
        v.ask("And then?")
        v.answered()
    first = [{"role": "user", "text": QUESTION}, {"role": "assistant", "text": ANSWER.answer}]
    assert [r.body["history"] for r in server.sent("/v1/query")] == [[], first, []]


def test_options_and_key_go_with_the_question_and_stay_in_the_tab(
    window: Open, server: PlaygroundServer, browser: Browser
) -> None:
    """Profile, passages, filter and key are sent; a reload remembers them, another tab and localStorage do not."""
    with window() as v:
        page = v.open().page
        page.get_by_label("Thorough").check()
        page.get_by_role("button", name="Options").click()
        page.get_by_label("Passages").fill("7")
        page.get_by_label("Filter").fill('source = "handbook"')
        page.get_by_label("API key").fill("rag_secret")
        v.ask(QUESTION)
        v.answered()
        page.reload()
        v.ask(QUESTION)
        v.answered()
        assert page.evaluate("localStorage.length + document.cookie.length") == 0
        assert "rag_secret" not in page.content()
    with window() as other:
        expect(other.open().page.get_by_label("API key", exact=True)).to_have_value("")
    for sent in server.sent("/v1/query"):
        assert sent.headers["Authorization"] == "Bearer rag_secret"
        chosen = {"profile": "thorough", "k": 7, "filter": 'source = "handbook"'}
        assert sent.body == {"question": QUESTION, "history": [], "stream": True, **chosen}


def test_a_missing_key_is_asked_for(window: Open, server: PlaygroundServer) -> None:
    """After a 401 the cursor stands in the key field, and Enter there asks the same question again."""
    server.answers[QUESTION] = [problem(401, title="A valid API key is needed"), problem(401), stream(ANSWER)]
    with window(size=PHONE) as v:
        v.expected = ["status of 401"]
        turn = v.open().ask(QUESTION)
        expect(turn).to_contain_text("This server wants an API key")
        expect(v.page.get_by_label("API key")).to_be_focused()
        v.page.keyboard.type("rag_mistyped")
        v.page.keyboard.press("Enter")
        expect(v.turn()).to_contain_text("The API key was not accepted")
        v.page.keyboard.type("rag_right")
        v.page.keyboard.press("Enter")
        v.answered()
        expect(v.page.locator(".turn")).to_have_count(1)
    keys = [r.headers.get("Authorization") for r in server.sent("/v1/query")]
    assert keys == [None, "Bearer rag_mistyped", "Bearer rag_right"]


def test_retry_after_is_counted_down(window: Open, server: PlaygroundServer) -> None:
    """The button to try again is closed until Retry-After is over, be it in a header or within the stream."""
    within = Script([sse(TextDelta("x")), b'event: error\ndata: {"status": 503, "retry_after_s": 1}\n\n'])
    refusals = {
        "Too many questions": problem(429, detail="limit reached: questions a minute", Retry_After="1"),
        "Nothing is indexed yet.": problem(503, detail="nothing is indexed yet", Retry_After="1"),
        "The server cannot answer right now.": within,
    }
    with window() as v:
        v.expected = ["status of"]
        v.open()
        for sentence, script in refusals.items():
            server.answers[sentence] = [script, stream(ANSWER)]
            turn = v.ask(sentence)
            expect(turn.locator(".trouble")).to_contain_text(sentence)
            turn.get_by_role("button", name="Try again", exact=True).click()
            v.answered()
        server.answers["wait"] = problem(503, Retry_After="100")
        expect(v.ask("wait").get_by_role("button")).to_be_disabled()
        expect(v.turn().get_by_role("button")).to_have_text(re.compile(r"Try again in \d\d s"))


def test_refusals_are_plain_sentences(window: Open, server: PlaygroundServer) -> None:
    """Each kind of refusal is told in words, with the request's id."""
    sentences = {
        400: "filter: unknown field",
        403: "does not allow",
        413: "longer than",
        500: "went wrong in the server",
    }
    with window() as v:
        v.expected = ["status of"]
        v.open()
        for status, sentence in sentences.items():
            server.answers[f"{status}?"] = problem(status, title="Not valid", detail="filter: unknown field")
            expect(v.ask(f"{status}?")).to_contain_text(sentence)
            expect(v.turn()).to_contain_text("req-p")


def test_an_unreachable_server_is_said(window: Open) -> None:
    """No connection at all is told in words, for questions and for the health dot."""
    with window() as v:
        v.expected = ["ERR_INTERNET_DISCONNECTED"]
        v.open()
        v.page.context.set_offline(True)
        turn = v.ask(QUESTION)
        expect(turn).to_contain_text("The server cannot be reached")
        v.page.context.set_offline(False)


def test_a_thumb_counts_once(window: Open, server: PlaygroundServer) -> None:
    """Two clicks are one thumb; a comment and a change of mind each have an idempotency key of their own."""
    with window() as v:
        turn = v.open().ask(QUESTION)
        v.answered()
        up, down = turn.get_by_label("Good answer"), turn.get_by_label("Bad answer")
        up.dblclick()
        expect(up).to_have_attribute("aria-pressed", "true")
        up.click()
        turn.get_by_label("Comment on this answer").fill("Clear.")
        v.page.keyboard.press("Enter")
        expect(turn).to_contain_text("Thank you, the comment was sent.")
        down.click()
        expect(down).to_have_attribute("aria-pressed", "true")
        expect(up).to_have_attribute("aria-pressed", "false")
    sent = server.sent("/v1/feedback")
    rated = {"request_id": "req-1", "rating": "up"}
    assert [r.body for r in sent] == [rated, {**rated, "comment": "Clear."}, {**rated, "rating": "down"}]
    assert len({r.headers["Idempotency-Key"] for r in sent}) == 3


def test_a_thumb_that_got_lost_is_sent_again_with_its_key(window: Open, server: PlaygroundServer) -> None:
    """When the connection breaks, the second attempt carries the same key, so that it counts once; a refusal is told."""
    lost: list[str] = []

    def lose(route: Route) -> None:
        lost.append(route.request.headers["idempotency-key"])
        route.abort("connectionreset")

    server.feedback = [problem(503)]
    with window() as v:
        v.expected = ["ERR_CONNECTION_RESET", "status of 503"]
        v.open().ask(QUESTION)
        v.answered()
        v.page.route("**/v1/feedback", lose, times=1)
        v.turn().get_by_label("Good answer").click()
        expect(v.turn()).to_contain_text("That could not be sent.")
        expect(v.turn().get_by_label("Good answer")).to_have_attribute("aria-pressed", "false")
    assert [r.headers["Idempotency-Key"] for r in server.sent("/v1/feedback")] == lost


CAME_ABOUT: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["Full answer", "Quoted, not written by a model", "Not from the cache", "No cost"]),
    ({"cache": "exact", "generator": "gpt-5-mini"}, ["From the cache", "Written by gpt-5-mini"]),
    ({"cache": "semantic", "cost_usd": None}, ["From the cache, similar question", "Cost unknown"]),
    (
        {"mode": "keyword_only", "degraded": [Degradation("embed", "DependencyTimeout")], "cost_usd": 0.00012},
        ["Keyword search only", "The search by meaning took too long.", "by the words of the question", "$0.00012"],
    ),
    (
        {"mode": "context_only", "degraded": [Degradation("llm", "QuotaExhausted")]},
        ["Extracts only", "The language model is out of quota.", "No answer could be generated"],
    ),
    (
        {"mode": "cached", "degraded": [Degradation("vector_store", "Sunspots"), Degradation("reranker", "by_words")]},
        ["From an earlier answer", "The search index did not do its part (Sunspots).", "The reranker went by words"],
    ),
]


def test_how_an_answer_came_about_is_said(window: Open, server: PlaygroundServer) -> None:
    """Mode, cache, generator, cost and what did not work are there in plain words."""
    with window(scheme="dark") as v:
        v.open()
        for number, (changes, words) in enumerate(CAME_ABOUT):
            server.answers[f"{number}?"] = stream(answer(f"“{QUOTE}” [1]", [CITED], **changes))
            v.ask(f"{number}?")
            for expected in [*words, "Release r-0042"]:
                expect(v.answered()).to_contain_text(expected)
        flows.everyone_can_read_it(v)


def test_a_refusal_is_marked(window: Open, server: PlaygroundServer) -> None:
    """An answer that the documents do not hold is called that, and has no sources."""
    server.answers[QUESTION] = stream(answer("The documents do not answer this question.", refused=True))
    with window() as v:
        v.open().ask(QUESTION)
        expect(v.answered()).to_contain_text("No answer in the documents")
        expect(v.turn().get_by_role("region", name="Sources")).to_have_count(0)


def test_hostile_text_stays_text(window: Open, server: PlaygroundServer) -> None:
    """Nothing that a server or a document says becomes markup, script, a link to elsewhere or a request."""
    evil = (
        "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script></textarea>"
        "<svg/onload=alert(1)> [a](javascript:alert(1)) ![b](https://evil.example/b.png) <a href='https://evil.example'>c</a>"
        " {{7*7}} ${7*7} \u202e [1] [99] [1, 99] **<b>x</b>** `<i>y</i>`"
    )
    cited = cite(1, evil, uri="javascript:alert(1)", title=evil, heading_path=evil, source=evil, run_id=evil)
    said = answer(
        evil, [cited], generator=evil, release_id=evil, timings_ms={evil: 1.0, "__proto__": 2.0, "total": 3.0}
    )
    said = msgspec.structs.replace(said, degraded=[Degradation("constructor", "__proto__"), Degradation(evil, evil)])
    server.answers[evil] = stream(said)
    hostile = span_of(
        cited, before=evil, lead=evil[:20], tail=evil, after=evil, mime_type=evil, run_url="javascript:alert(1)"
    )
    server.citations["chunk-1"] = hostile
    server.ready = (503, {"status": evil, "dependencies": {evil: evil}, "missing": [evil]})
    with window(size=PHONE) as v:
        v.expected = ["status of 503"]
        v.open().ask(evil)
        turn = v.answered()
        turn.get_by_role("button", name="Details").click()
        turn.get_by_text("Raw JSON").click()
        turn.locator("a.cite").first.click()
        assert v.marked().inner_text().split() == evil.split()
        v.page.get_by_role("button", name="Close the source").click()
        v.page.locator("#health summary").click()
        expect(v.page.locator("#health-body")).to_contain_text("<script>")
        outside = "#thread, #panel, #health, #preview"
        assert v.page.locator(f":is({outside}) :is(img, script, iframe, textarea, b, i, svg:not(.icon))").count() == 0
        links = v.page.locator("a").evaluate_all("(links) => links.map((a) => a.getAttribute('href'))")
        assert all(href.startswith("#") for href in links), links
        assert v.page.title() == "Ask your documents · rag-platform"
        flows.everyone_can_read_it(v)


def test_quotes_are_found_by_characters_and_not_by_utf16(window: Open, server: PlaygroundServer) -> None:
    """Offsets count characters of the document, so text outside the basic plane shifts nothing; of equal
    quotes the cited one is marked; a document that has changed is said to have changed."""
    quote = "🌙 is far."
    moved = cite(1, quote, start=60, end=60 + len(quote))
    gone = cite(2, "This sentence was deleted.")
    server.answers[QUESTION] = stream(answer(f"{quote} [1] {gone.quote} [2]", [moved, gone]))
    server.citations = {
        "chunk-1": span_of(moved, before="👩‍🔬" * 9, lead=f"{quote} 𝔐𝔬𝔬𝔫: ", tail=" So it is.", after=quote),
        "chunk-2": {**span_of(gone, before="", lead="", tail="", after=""), "text": "Something else stands here."},
    }
    with window() as v:
        v.open().ask(QUESTION)
        v.answered().locator("a.cite").first.click()
        expect(v.marked()).to_have_text(quote)
        before = v.marked().evaluate("(m) => m.previousSibling.textContent")
        assert before == f"{quote} 𝔐𝔬𝔬𝔫: "
        v.page.get_by_role("button", name="Next source").click()
        expect(v.page.get_by_role("dialog")).to_contain_text("The document has changed since")
        expect(v.page.get_by_role("dialog")).to_contain_text("Something else stands here.")


def test_a_source_that_cannot_be_opened_still_shows_its_quote(window: Open, server: PlaygroundServer) -> None:
    """The panel says what happened, keeps the quote and where it is from, and tries again."""
    server.citations["chunk-1"] = problem(404)
    with window() as v:
        v.expected = ["status of 404"]
        v.open().ask(QUESTION)
        v.answered().locator("a.cite").first.click()
        panel = v.page.get_by_role("dialog")
        expect(panel).to_contain_text("That is no longer there")
        expect(panel).to_contain_text("s-2026-11-22")
        server.citations["chunk-1"] = SPAN
        panel.get_by_role("button", name="Try again").click()
        expect(panel).to_contain_text("Below it.")
        expect(v.marked()).to_have_text(QUOTE)


def test_the_panel_leads_to_the_document_and_the_run(window: Open, server: PlaygroundServer) -> None:
    """Addresses on the web are links that give nothing away; arrows walk through the sources."""
    cited = cite(1, QUOTE, uri="https://docs.example/guide.html")
    server.answers[QUESTION] = stream(answer(f"{QUOTE} [1] {SECOND.quote} [2]", [cited, SECOND]))
    known = {"run_url": "http://127.0.0.1:3000/runs/run-7c1e", "modified_at": 1_795_000_000.0}
    server.citations["chunk-1"] = span_of(cited, before="", lead="", tail="", after="", **known)
    with window() as v:
        v.open().ask(QUESTION)
        v.answered().get_by_role("button", name="Source 1: Guide, part 1").click()
        v.marked()
        panel = v.page.get_by_role("dialog")
        for name, href in (("https://docs.example/guide.html", cited.uri), ("run-7c1e", known["run_url"])):
            link = panel.get_by_role("link", name=name)
            expect(link).to_have_attribute("href", str(href))
            expect(link).to_have_attribute("rel", "noopener noreferrer")
        expect(panel).to_contain_text("2026")
        v.page.keyboard.press("ArrowRight")
        expect(panel).to_contain_text("Source 2, 2 of 2")
        expect(v.marked()).to_have_text(SECOND.quote)


def test_a_link_asks_its_question(window: Open, server: PlaygroundServer) -> None:
    """``?q=`` asks at once; the link that the page hands out says the same behind #, where no server logs it."""
    with window() as v:
        v.open("/?q=How+long+does+a+replay+take%3F&profile=fast&k=3")
        v.answered().get_by_role("button", name="Copy link").click()
        link = str(v.page.evaluate("navigator.clipboard.readText()"))
        assert link.startswith(f"{v.base_url}/#q=How+long")
    with window() as v:
        v.open(link.removeprefix(v.base_url))
        v.answered()
    chosen = [(r.body["question"], r.body["profile"], r.body["k"]) for r in server.sent("/v1/query")]
    assert chosen == [(QUESTION, "fast", 3)] * 2


def test_the_health_dot_names_what_is_missing(window: Open, server: PlaygroundServer) -> None:
    """Not ready: the dot's text names the dependencies, its list says why."""
    states = {"ledger": "ok", "vector_store": "DependencyTimeout", "release": "Unanswerable"}
    server.ready = (503, {"status": "not_ready", "dependencies": states, "missing": ["vector_store", "release"]})
    with window() as v:
        v.expected = ["status of 503"]
        health = v.open().page.locator("#health")
        expect(health).to_contain_text("Missing: vector store, release")
        health.locator("summary").click()
        expect(health.get_by_role("listitem").nth(1)).to_have_text("vector storetook too long")
        flows.everyone_can_read_it(v)


def test_enter_sends_and_shift_enter_does_not(window: Open, server: PlaygroundServer) -> None:
    """Shift and Enter write a second line, Arrow up brings the last question back, and blanks are not sent."""
    server.answers["one\ntwo"] = stream(ANSWER)
    with window() as v:
        field = v.open().page.get_by_label("Your question")
        v.page.keyboard.press("Enter")
        v.page.keyboard.type("one")
        v.page.keyboard.press("Shift+Enter")
        v.page.keyboard.type("two")
        v.page.keyboard.press("Enter")
        v.answered()
        expect(field).to_have_value("")
        v.page.keyboard.press("ArrowUp")
        expect(field).to_have_value("one\ntwo")
    assert [r.body["question"] for r in server.sent("/v1/query")] == ["one\ntwo"]


def test_long_text_scrolls_nothing_sideways(window: Open, server: PlaygroundServer) -> None:
    """Words without a break, long code and long names stay inside the narrowest phone."""
    word = "Donaudampfschifffahrt" * 30
    text = f"{word} [1]\n\n```\n{word}\n```\n\n- {word}\n"
    cited = cite(1, word, title=word, uri=word, heading_path=word, version_id=word)
    server.answers[word] = stream(answer(text, [cited], generator=word, release_id=word))
    server.citations["chunk-1"] = span_of(cited, before=word, lead=word[:40], tail=word, after=word)
    with window(size={"width": 320, "height": 640}) as v:
        v.open().ask(word)
        v.answered().get_by_role("button", name="Details").click()
        flows.everyone_can_read_it(v)
        v.turn().locator("a.cite").first.click()
        v.marked()
        flows.everyone_can_read_it(v)


def test_a_plain_json_answer_is_read_too(window: Open, server: PlaygroundServer) -> None:
    """A proxy or a server that does not stream is as good."""
    server.answers[QUESTION] = json_reply(msgspec.to_builtins(ANSWER))
    with window() as v:
        v.open().ask(QUESTION)
        expect(v.answered()).to_contain_text(QUOTE)


def test_every_file_is_there_and_small() -> None:
    """index.html names each module once for preloading; the page is 100 kB at most and holds no inline code."""
    ui = Path(flows.__file__).parents[2] / "serve" / "ui"
    index = (ui / "index.html").read_text()
    modules = {path.name for path in ui.glob("*.js")} - {"app.js"}
    assert sorted(modules) == sorted(p.split('"')[0] for p in index.split('rel="modulepreload" href="ui/')[1:])
    assert "style=" not in index and "<style" not in index and " on" + "click" not in index
    assert sum(path.stat().st_size for path in ui.iterdir()) < 100_000
    for path in ui.glob("*.js"):
        assert "innerHTML" not in path.read_text() and "insertAdjacentHTML" not in path.read_text()


def test_answers_of_this_file_have_the_apis_shape() -> None:
    """The scripts are built from the API's own structures; this one decodes as they do."""
    assert msgspec.json.decode(msgspec.json.encode(ANSWER), type=Answer) == ANSWER
