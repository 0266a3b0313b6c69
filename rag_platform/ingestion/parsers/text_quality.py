"""Is a text layer, or a title in a document's properties, worth keeping?

A font without a usable ToUnicode table gives private-use, replacement or control characters; an old
scanner's text layer gives letters and symbols mixed inside words; a broken shaping table gives letters
stuttered three times over. Counting these is cheap and knows no language.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, Literal

VERSION: Final = 1

Quality = Literal["good", "poor", "garbled"]

_SAMPLE_CHARS: Final = 20_000
_MIN_CHARS: Final = 8
_MIN_WORDS: Final = 20
_GARBLED_SHARE: Final = 0.3
_POOR_SHARE: Final = 0.025
_MEANINGLESS: Final = frozenset({"Co", "Cn", "Cc", "Cs"})

_WORD: Final = re.compile(r"\S+")
_LETTER_SYMBOL_LETTER: Final = re.compile(
    r"[^\W\d_][^\w\s.,:/@&#+=()\[\]{}<>|\\'’‘`´\"“”\-‐‑–—·•…%~$€£\u0300-\u036f\u200b-\u200f\u0640\uad00]+\w|[^\W\d_][«»*^;!?]+[^\W\d_]"
)
_STUTTER: Final = re.compile(r"([^\W\d_A-Zw])\1\1")
_USELESS_TITLE: Final = re.compile(
    r"(?:untitled|no title|title|document|dokument|presentation|powerpoint presentation|slide|microsoft word|page|scan|print)"
    r"[\s\d_-]*$|.*\.[a-z][a-z0-9]{1,4}$|.*\(use style\b|(?:file|https?)://|[\W\d_]*$",
    re.IGNORECASE,
)
_TITLE_PREFIX: Final = re.compile(r"^microsoft (?:word|powerpoint|excel) - ", re.IGNORECASE)
_URL: Final = re.compile(r"://|www\.|@")


def judge(text: str) -> Quality:
    """Return ``garbled`` when a third of the visible characters mean nothing, ``poor`` when one word in
    40 is one that nobody writes, else ``good``. Looks at the first 20,000 characters."""
    sample = text[:_SAMPLE_CHARS]
    visible = [c for c in sample if not c.isspace()]
    if len(visible) < _MIN_CHARS:
        return "good"
    meaningless = sum(1 for c in visible if c == "\ufffd" or unicodedata.category(c) in _MEANINGLESS)
    if meaningless >= _GARBLED_SHARE * len(visible):
        return "garbled"
    return "poor" if poor_share(sample) >= _POOR_SHARE else "good"


def poor_share(text: str) -> float:
    """Return the share of words (0 to 1) with a symbol inside or a letter three times in a row; 0 for
    fewer than 20 words."""
    words = [w for w in _WORD.findall(text) if not _URL.search(w)]
    if len(words) < _MIN_WORDS:
        return 0.0
    return sum(1 for w in words if _LETTER_SYMBOL_LETTER.search(w) or _STUTTER.search(w)) / len(words)


def letter_count(text: str) -> int:
    """Return the number of letters and digits of any script."""
    return sum(1 for c in text if c.isalnum())


def useful_title(raw: str | None) -> str | None:
    """Return the title of a document's properties when it says something: not "untitled", not a file
    name, not a template's placeholder, not mojibake."""
    title = _TITLE_PREFIX.sub("", " ".join((raw or "").replace("\x00", " ").split()))
    if not 3 <= len(title) <= 300 or _USELESS_TITLE.match(title) or judge(title) != "good":
        return None
    return title
