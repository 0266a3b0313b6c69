"""What readers do on the playground, as steps that run against any base URL: the scripted server or the real API.

A ``Visit`` is one browser window. It watches while the steps run, and ``check`` says what no visit may do:
write errors to the console, throw, talk to another host, or scroll sideways.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
WAIT_MS = 15_000
"""How long a step may take on a loaded machine; none is expected to take this long."""

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window. Only one at a time in a process."""
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A window on the playground of ``base_url``.

    Attributes:
        expected: parts of console messages that the test provokes, such as ``status of 503``.
    """

    page: Page
    base_url: str
    expected: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda e: self.said.append(f"uncaught: {e}"))
        self.page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.said.append(message.text)

    def _request(self, request: Request) -> None:
        if not request.url.startswith(f"{self.base_url}/"):
            self.foreign.append(request.url)

    def check(self) -> None:
        """Assert what holds after every visit."""
        unexpected = [m for m in self.said if not any(e in m for e in self.expected)]
        assert not unexpected, f"the console says {unexpected}"
        assert not self.foreign, f"other hosts were asked: {self.foreign}"
        assert not self.scrolls_sideways(), "the page scrolls sideways"

    def scrolls_sideways(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))

    # ── steps ──

    def open(self, path: str = "/") -> Visit:
        self.page.goto(f"{self.base_url}{path}")
        expect(self.page.get_by_label("Your question")).to_be_visible()
        expect(self.page.locator("#health")).not_to_have_attribute("data-state", "unknown")
        return self

    def ask(self, question: str) -> Locator:
        """Type a question and press Enter; return its turn."""
        self.page.get_by_label("Your question").fill(question)
        self.page.keyboard.press("Enter")
        return self.turn()

    def turn(self) -> Locator:
        """The newest turn."""
        return self.page.locator(".turn").last

    def answered(self) -> Locator:
        """Wait until the newest question is answered; return its turn."""
        expect(self.turn()).to_have_attribute("data-state", "done")
        return self.turn()

    def marked(self) -> Locator:
        """Wait until the side panel shows the quote inside its document; return the mark."""
        panel = self.page.get_by_role("dialog")
        expect(panel).to_be_visible()
        expect(panel.locator("#panel-content")).not_to_have_attribute("aria-busy", "true")
        expect(panel.locator("mark")).to_be_in_viewport()
        return panel.locator("mark")


@contextmanager
def visit(
    browser: Browser, base_url: str, *, size: dict[str, int] = DESKTOP, scheme: str = "light", touch: bool = False
) -> Iterator[Visit]:
    """Open a window of its own, with nothing remembered, and check it at the end."""
    context = browser.new_context(
        viewport=size,  # type: ignore[arg-type]
        color_scheme=scheme,  # type: ignore[arg-type]
        has_touch=touch,
        reduced_motion="reduce",
        permissions=["clipboard-read", "clipboard-write"],
    )
    context.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    try:
        opened = Visit(context.new_page(), base_url.rstrip("/"))
        yield opened
        opened.check()
    finally:
        context.close()


# ── flows for any server ──


def answer_is_cited_and_its_source_opens(v: Visit, question: str) -> None:
    """A question is answered; its first number opens the document at the quote; closing returns to the number."""
    v.ask(question)
    turn = v.answered()
    number = turn.locator("a.cite").first
    number.hover()
    expect(v.page.get_by_role("tooltip")).to_be_visible()
    quote = v.page.get_by_role("tooltip").locator("blockquote").inner_text()
    number.click()
    assert v.marked().inner_text().split() == quote.split()
    v.page.keyboard.press("Escape")
    expect(v.page.get_by_role("dialog")).to_be_hidden()
    expect(number).to_be_focused()


def everything_from_the_keyboard(v: Visit, question: str) -> None:
    """Asks, opens a source, closes it, rates and opens the details without a pointer."""
    page = v.page
    expect(page.get_by_label("Your question")).to_be_focused()
    page.keyboard.type(question)
    page.keyboard.press("Enter")
    turn = v.answered()
    expect(page.get_by_label("Your question")).to_be_focused()
    number = turn.locator("a.cite").first
    tab_to(page, number, backwards=True)
    expect(page.get_by_role("tooltip")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("tooltip")).to_be_hidden()
    page.keyboard.press("Enter")
    v.marked()
    page.keyboard.press("Escape")
    expect(number).to_be_focused()
    tab_to(page, turn.get_by_label("Good answer"))
    page.keyboard.press("Enter")
    expect(turn.get_by_label("Good answer")).to_have_attribute("aria-pressed", "true")
    tab_to(page, turn.get_by_role("button", name="Details"))
    page.keyboard.press("Enter")
    expect(turn.get_by_role("table", name="Time per stage")).to_be_visible()


def tab_to(page: Page, target: Locator, *, backwards: bool = False) -> None:
    """Press Tab until ``target`` has the focus."""
    for _ in range(60):
        if target.evaluate("(e) => e === document.activeElement"):
            return
        page.keyboard.press("Shift+Tab" if backwards else "Tab")
    raise AssertionError(f"the keyboard does not reach {target}")


LOW_CONTRAST = """() => {
  const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length > 3 ? m : [...m, 1]; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { const layers = []; for (; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]); };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    if (e.closest(".visually-hidden, .skip, svg, :disabled")) continue;
    const back = ground(e), [a, b] = [light(over(parse(getComputedStyle(e).color), back)), light(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${e.tagName}.${e.className}: ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  return bad;
}"""

UNNAMED = """() => [...document.querySelectorAll("button, input, textarea, a, summary, select, [role=dialog], dialog")]
  .filter((e) => e.checkVisibility() && !(e.getAttribute("aria-label") || e.innerText?.trim() || e.labels?.length
    || document.getElementById(e.getAttribute("aria-labelledby"))?.innerText)).map((e) => e.outerHTML.slice(0, 120))"""

OUTSIDE = """() => [...document.querySelectorAll("button, input, a, textarea, summary, p, li, td, h1, h2, mark")]
  .filter((e) => e.checkVisibility() && !e.closest(".visually-hidden, .skip, pre"))
  .filter((e) => { const r = e.getBoundingClientRect(); return r.width && (r.left < -1 || r.right > innerWidth + 1); })
  .map((e) => e.outerHTML.slice(0, 120))"""


def everyone_can_read_it(v: Visit) -> None:
    """Text has a contrast of 4.5 to 1 (WCAG AA), controls have names, nothing sticks out of the window."""
    for what, script in (("too little contrast", LOW_CONTRAST), ("no name", UNNAMED), ("outside", OUTSIDE)):
        found = v.page.evaluate(script)
        assert not found, f"{what}: {found}"
