"""Words that may stand for each other in a question without making it another one.

Few and certain, for questions about documents and software: a missing one costs a cache hit, a wrong one
gives a wrong answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rag_platform.query.wording.words import stem, word_set

_GROUPS = (
    "delete remove erase removal deletion",
    "enable activate",
    "disable deactivate",
    "change modify update edit alter",
    "show display view see list print",
    "configure setup configuration config settings setting",
    "maximum max maximal limit largest biggest",
    "minimum min minimal smallest",
    "need require requirement required necessary",
    "cost price fee priced",
    "store locate save stored located location",
    "permission privilege",
    "grant give gave given",
    "author write wrote written writer",
    "differ difference different",
    "expire expiration expiry expires",
    "build built construct construction",
    "start begin began begun",
    "finish end complete",
    "create make made creation",
    "name call named called",
    "mean meaning meant signify",
    "advantage benefit pro",
    "disadvantage drawback con",
    "picture image photo",
    "company firm enterprise",
    "employee worker staff",
    "large big",
    "fast quick quickly rapid",
    "error failure",
    "fall fell fallen",
    "win won",
    "lose lost loss",
    "die died death",
    "lead led leader",
    "keep kept retain retention",
    "choose chose chosen select selection",
    "fix repair resolve solve",
    "buy bought purchase",
    "sell sold",
    "take took taken",
    "send sent",
    "pay paid payment",
    "hold held",
    "grow grew grown growth",
    "happen occur",
    "include contain",
    "movie film",
    "car automobile",
    "doctor physician",
    "allow permit",
    "restrict limit",
    "folder directory",
    "repository repo",
    "database db",
    "kubernetes k8s",
    "information info",
    "documentation docs",
    "administrator admin",
    "application app",
    "environment env",
    "approve approval approved",
    "rotate rotation",
    "valid validity",
    "support supported",
    "install installation",
    "upgrade upgrading",
    "encrypt encryption",
)

_PHRASES = tuple(
    (re.compile(rf"\b(?:{phrase})\b"), word)
    for phrase, word in (
        (r"set(?:s|ting)? up", "configure"),
        (r"(?:turn|switch)(?:s|ed|ing|es)? on", "enable"),
        (r"(?:turn|switch)(?:s|ed|ing|es)? off", "disable"),
        (r"(?:log|sign)(?:s|ged|ging|ed|ing)? (?:in|on)", "login"),
        (r"(?:log|sign)(?:s|ged|ging|ed|ing)? (?:out|off)", "logout"),
        (r"roll(?:s|ed|ing)? back", "rollback"),
        (r"shut(?:s|ting)? down", "shutdown"),
        (r"back(?:s|ed|ing)? up", "backup"),
        (r"(?:take|takes|took|taken|taking) place", "happen"),
        (r"get(?:s|ting)? rid of", "delete"),
    )
)

NEUTRAL = frozenset(
    map(
        stem,
        word_set(
            "exactly really actually basically simply currently possible able "
            "explain describe definition define kind type sort"
        ),
    )
)
"""Stems that add nothing to what is asked."""


def _canonical() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for group in _GROUPS:
        stems = [stem(word) for word in group.split()]
        for s in stems:
            found.setdefault(s, stems[0])
    return found


CANONICAL = _canonical()
"""The stem that stands for all of its group."""


def one_word(sentence: str) -> str:
    """Return a folded sentence with verbs of two words as one."""
    for pattern, word in _PHRASES:
        sentence = pattern.sub(word, sentence)
    return sentence
