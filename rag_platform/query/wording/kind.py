"""What sort of answer a question wants: a person, a time, a number …"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from rag_platform.query.wording.words import word_set

_KINDS: tuple[tuple[str, str], ...] = (
    (
        r"how (?:many|much)|(?:what|which) (?:\w+ ){0,2}?(?:number|amount|percentage|percent|proportion|share|quantity)",
        "count",
    ),
    (r"how long|(?:what|which) (?:\w+ ){0,2}?(?:duration|length of time)", "duration"),
    (r"how (?:often|frequently)", "frequency"),
    (r"how (?:old|far|tall|high|big|large|deep|wide|fast|hot|cold|heavy|close|strong)", "measure"),
    (
        r"when|(?:what|which) (?:\w+ )?(?:year|date|day|month|decade|century|time|era|period)|since when",
        "time",
    ),
    (
        r"where|(?:what|which) (?:\w+ )?(?:city|country|place|location|region|state|town|continent|county|province)",
        "place",
    ),
    (
        r"who(?:m|se)?|(?:what|which) (?:\w+ )?(?:person|people|man|woman|king|queen|president|author|scientist)",
        "person",
    ),
    (r"why|how come|(?:what|which) (?:\w+ ){0,2}?(?:reason|reasons|cause|causes|purpose)|what for", "reason"),
    (r"how to|how (?:do|can|could|should|would|must|might) (?:i|we|you|one|they|someone)|how", "manner"),
    (r"(?:what|which) (?:\w+ ){0,2}?(?:way|ways|steps|method|procedure|process)", "manner"),
    (r"what|which", "thing"),
)
_KIND_PATTERNS = [(re.compile(rf"\b(?:{pattern})\b"), kind) for pattern, kind in _KINDS]
_KIND_NOUNS = word_set(
    "many much number amount quantity year time place location person reason reasons way ways step steps method procedure "
    "process cause causes long duration often frequently"
)
_YES_NO = word_set(
    "is are was were am do does did has have had can could shall should will would may might must isn't aren't "
    "doesn't don't didn't can't won't"
)
_ASKING = word_set("who whom what which")
_DO = word_set("do does did don't doesn't didn't")
_BE = word_set("is are was were be been being am isn't aren't wasn't weren't")
_TENSES = {
    "present": word_set("is are am do does has have isn't aren't don't doesn't hasn't haven't"),
    "past": word_set("was were did had wasn't weren't didn't hadn't"),
    "future": word_set("will won't"),
}
_MODALITIES = {
    "may": word_set("can could may might possible able can't couldn't cannot"),
    "must": word_set("must should shall mustn't shouldn't"),
}
_LOOSE = frozenset({"none", "thing", "manner"})
"""A request without question word (“install kubectl on ubuntu”) is one of these, not a who or a when."""


def kind_of(words: Sequence[str]) -> tuple[str, frozenset[str]]:
    """Return what sort of answer is wanted, that of the earliest question word, the more specific first; and
    the words that say nothing else."""
    if words and words[0] in _YES_NO:
        return "yes or no", frozenset()
    sentence = " ".join(words)
    found = [
        (m.start(), rank, kind, m[0]) for rank, (p, kind) in enumerate(_KIND_PATTERNS) if (m := p.search(sentence))
    ]
    if not found:
        return "none", frozenset()
    _, _, kind, phrase = min(found)
    return kind, _KIND_NOUNS & frozenset(phrase.split())


def kinds_agree(a: str, b: str) -> bool:
    return a == b or ("none" in (a, b) and {a, b} <= _LOOSE)


def role_of(words: Sequence[str]) -> str:
    """Return whether a who or what asks for the one who does (``agent``) or the one to whom it is done
    (``patient``): “who defeated Rome”, “who did Rome defeat”, “who was defeated by Rome”."""
    if any(word == "by" and after in _ASKING for word, after in pairwise(words)):
        return "agent"
    if not _DO.isdisjoint(words):
        return "patient"
    if _BE.isdisjoint(words):
        return "agent"
    return "patient" if "by" in words else "unknown"


def tenses_of(words: Sequence[str]) -> frozenset[str]:
    """Return the tenses of its auxiliaries: “who is” is not “who was”."""
    return frozenset(tense for tense, auxiliaries in _TENSES.items() if not auxiliaries.isdisjoint(words))


def modalities_of(words: Sequence[str]) -> frozenset[str]:
    """Return whether it asks for what may be, or for what must be."""
    return frozenset(modality for modality, verbs in _MODALITIES.items() if not verbs.isdisjoint(words))
