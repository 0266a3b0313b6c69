"""Where sentences and words end, by punctuation alone.

Every pattern looks at a bounded number of characters per position, so scanning is linear whatever
the text.
"""

from __future__ import annotations

import re

_CLOSING = r"[\"'”’»)\]）】」』》]"
_SENTENCE = re.compile(
    rf"(?<=[.!?…؟۔।॥])(?:{_CLOSING}{{0,3}})(?=\s)"  # ends where white space follows
    rf"|(?<=[。！？；])(?:{_CLOSING}{{0,3}})(?!{_CLOSING})"  # CJK: no space needed
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|al|approx|no|fig|eq|sec|vol|pp?|mr|mrs|ms|dr|prof|st|inc|ltd|co|jr|sr)|\b[A-Z])\.$",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<=\s)(?=\S)")
_LOOK_BACK = 10


def sentence_ends(text: str, start: int, end: int) -> list[int]:
    """Return the positions inside ``(start, end)`` at which a sentence has ended, ascending."""
    ends = []
    for match in _SENTENCE.finditer(text, start, end):
        position = match.end()
        if position <= start or position >= end:
            continue
        follower = text[position : position + 2].strip()[:1]
        if text[match.start() - 1] == ".":
            if follower.islower():
                continue
            if _ABBREVIATION.search(text[max(start, position - _LOOK_BACK) : position]):
                continue
        ends.append(position)
    return ends


def last_word_start(text: str, low: int, high: int) -> int | None:
    """Return the last position in ``(low, high]`` at which a word starts after white space, if any
    lies in the nearest 200 characters."""
    found = None
    for match in _WORD.finditer(text, max(low + 1, high - 200), min(len(text), high + 1)):
        if match.start() <= high:
            found = match.start()
    return found
