"""The words of a question as the caches compare them: split, folded, cut to a rough stem."""

from __future__ import annotations

import re

TOKEN = re.compile(r"[^\W_](?:[\w'’]|[-./:@+#](?=\w))*[%+#]*|[%°$€£]", re.UNICODE)
"""A word, number, version, path or identifier with what holds it together, or a sign that is a unit."""


def word_set(text: str) -> frozenset[str]:
    """Return the words of a list written as text."""
    return frozenset(text.split())


_VOWEL = re.compile("[aeiouy]")

FUNCTION_WORDS = word_set(
    """
    a an the this that these those it its they them their he she his her him we us our you your i me my mine
    and or but so if then as at by for from in into of off on onto to with about over under through via per
    is are was were be been being am do does did done doing has have had having can could shall should will would
    may might must there here what which who whom whose when where why how please tell give show know want like between
    get some any also just own such get's let's is's that's what's who's where's when's how's it's
    """
)
"""Words that carry the grammar of a question, not its subject."""


def fold(token: str) -> str:
    """Return the token as it is compared: case-folded, straight apostrophes, no possessive."""
    folded = token.casefold().replace("’", "'")
    return folded[:-2] if folded.endswith("'s") else folded.rstrip("'")


def tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


def stem(word: str) -> str:
    """Return a folded word without the commonest English endings: plural, -ing, -ed. Rough on purpose: equal
    stems mean "the same word in another form", unequal ones mean nothing."""
    if len(word) < 3 or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith("sses"):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        word = word[:-1]
    for ending in ("ing", "ed"):
        rest = word.removesuffix(ending)
        if rest != word and not word.endswith("eed") and len(rest) > 1 and _VOWEL.search(rest):
            word = rest
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word[:-1] if word.endswith("e") and len(word) > 2 else word


def content_stems(text: str) -> list[str]:
    """Return the stems of what the question is about, in order."""
    return [stem(f) for t in tokens(text) if (f := fold(t)) not in FUNCTION_WORDS]
