"""Whether two questions that mean nearly the same ask for the same answer.

A sentence embedding hardly sees what decides an answer: a number, a "not", a name, who against when, before
against after, who did it to whom. Each check looks at one of these, and the last one at everything else: what
is left of the words must be the same things. All err on the side of "no": that costs a cache hit, a "yes" too
many is a wrong answer. In other languages than English little more than another order of words agrees.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from rag_platform.query.wording.kind import kind_of, kinds_agree, modalities_of, role_of, tenses_of
from rag_platform.query.wording.opposites import OPPOSITES
from rag_platform.query.wording.quantities import is_number, quantities
from rag_platform.query.wording.synonyms import CANONICAL, NEUTRAL, one_word
from rag_platform.query.wording.words import FUNCTION_WORDS, fold, stem, tokens, word_set


def agree(asked: str, cached: str) -> bool:
    """Whether the answer to ``cached`` may be given to ``asked``. Symmetric."""
    a, b = _read(asked), _read(cached)
    return a == b or (
        a.quantities == b.quantities
        and a.negated == b.negated
        and _same_form(a, b)
        and not _opposed(a.words, b.words)
        and a.names <= b.stems
        and b.names <= a.stems
        and not any((d, right, left) in a.sides for d, left, right in b.sides)
        and _same_subject(a.subject, b.subject)
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the checks compare.

    Attributes:
        words, stems: all of them, folded; ``stems`` with the acronyms as they stand.
        names: stems of capitalised words, acronyms, identifiers and quoted words.
        sides: (preposition, a stem left of it, the stem right of it).
        subject: canonical stems in order, without grammar and numbers.
    """

    words: frozenset[str]
    stems: frozenset[str]
    quantities: frozenset[tuple[str, str]]
    negated: bool
    kind: str
    role: str
    tenses: frozenset[str]
    modalities: frozenset[str]
    names: frozenset[str]
    sides: frozenset[tuple[str, str, str]]
    subject: tuple[str, ...]


@lru_cache(maxsize=1024)
def _read(question: str) -> _Reading:
    text = _POLITE.sub("", question)
    found = tokens(text)
    words = [fold(t) for t in found]
    kind, wanted = kind_of(words)
    return _Reading(
        words=frozenset(words),
        stems=frozenset(map(stem, words)).union(t for t in found if _is_acronym(t)),
        quantities=quantities(words),
        negated=sum(w in _NEGATIONS or w.endswith("n't") or w.startswith("non-") for w in words) % 2 == 1,
        kind=kind,
        role=role_of(words) if kind in ("person", "thing") else "unknown",
        tenses=tenses_of(words),
        modalities=modalities_of(words),
        names=_names(text),
        sides=_sides(words),
        subject=_subject(words, wanted),
    )


_POLITE = re.compile(
    r"^\W*(?:(?:hi|hello|hey|please|ok|so|and)\b\W*)*"
    r"(?:(?:can|could|would|will) (?:you|someone|anyone|anybody)(?: please)? (?:tell me|explain(?: to me)?|say|show me|help me)"
    r"|do you know|does anyone know|i(?: would|'d|’d)? (?:want|need|like) to (?:know|find out|learn|understand)"
    r"|i(?: am|'m|’m) (?:wondering|looking for)|i wonder|please tell me|tell me|explain to me|let me know)?\b[\s,:]*",
    re.IGNORECASE,
)

_NEGATIONS = word_set(
    "not no never none nobody nothing neither nor without cannot except excluding exclude unless lack lacks lacking "
    "fail fails failed unable impossible false incorrect wrong"
)
_OPENERS = FUNCTION_WORDS | word_set(
    "list describe explain name define compare summarize summarise find identify according during after before "
    "while among between besides aside not how's install create delete update configure run use set add remove"
)
_QUOTED = re.compile(r"[\"“„«`]([^\"“”„«»`]{1,80})[\"”»`]|(?<!\w)'([^']{1,80})'(?!\w)")
_IDENTIFIER = re.compile(r"\w[-_./:@#+]\w|[a-z][A-Z]|[+#]$|_")


def _names(text: str) -> frozenset[str]:
    """Return what must be named by both: capitalised words, acronyms, identifiers and quoted words, folded."""
    found = {fold(t) for quoted in _QUOTED.findall(text) for t in tokens(quoted[0] or quoted[1])}
    opening = True
    for token in tokens(text):
        folded = fold(token)
        capitalised = token[0].isupper() and folded not in (_OPENERS if opening else FUNCTION_WORDS)
        identifier = _IDENTIFIER.search(token.rstrip("'’")) and folded not in FUNCTION_WORDS and "'" not in folded
        if capitalised or identifier:
            found.add(folded)
        elif _is_acronym(token):
            found.add(token if folded in FUNCTION_WORDS else folded)  # “US” is not “us”
        opening = False
    return frozenset(w if w.isupper() else stem(w) for w in found if not w.isdigit())


def _is_acronym(token: str) -> bool:
    return token.isupper() and len(token) > 1


_DIRECTIONS = word_set("to from than into by over versus vs against without instead")


def _sides(words: Sequence[str]) -> frozenset[tuple[str, str, str]]:
    found: set[tuple[str, str, str]] = set()
    for at, word in enumerate(words):
        if word in _DIRECTIONS:
            left = [stem(w) for w in words[:at] if w not in FUNCTION_WORDS and w not in _DIRECTIONS]
            right = [stem(w) for w in words[at + 1 :] if w not in FUNCTION_WORDS and w not in _DIRECTIONS]
            found.update((word, x, y) for x in left for y in right[:1] if x != y)
    return frozenset(found)


def _subject(words: Sequence[str], wanted: frozenset[str]) -> tuple[str, ...]:
    """What is asked about; ``wanted`` only say what sort of answer that is."""
    joined = one_word(" ".join(words)).split()
    stems = [stem(w) for w in joined if w not in FUNCTION_WORDS and w not in wanted and not is_number(w)]
    if joined and joined[-1] == "do":
        stems.append("do")  # “what does it do” is not “what is it”
    return tuple(CANONICAL.get(s, s) for s in stems if s not in NEUTRAL)


def _same_form(a: _Reading, b: _Reading) -> bool:
    """Whether both want the same sort of answer: kind, role, tense, and whether it may or must be."""
    modalities = a.modalities == b.modalities if a.kind == "yes or no" else _compatible(a.modalities, b.modalities)
    roles = "unknown" in (a.role, b.role) or a.role == b.role
    return kinds_agree(a.kind, b.kind) and roles and modalities and _compatible(a.tenses, b.tenses)


def _compatible(a: frozenset[str], b: frozenset[str]) -> bool:
    return not a or not b or not a.isdisjoint(b)


def _opposed(a: frozenset[str], b: frozenset[str]) -> bool:
    """Whether one says a word and the other, in its place, an opposite."""
    only_a, only_b = a - b, b - a
    return any(OPPOSITES[w] & only_b for w in only_a if w in OPPOSITES)


def _same_subject(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Whether both are about the same things, in another order at most; two words that have changed places
    across others have changed roles (“did Rome defeat Carthage”)."""
    if set(a) != set(b):
        return False
    moved = [n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
    return not (len(a) == len(b) and len(moved) == 2 and moved[1] - moved[0] > 1)
