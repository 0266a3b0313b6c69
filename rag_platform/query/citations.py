"""Which passage an answer's statements really rest on: a model's own ``[n]`` are claims, checked here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rag_platform.query import sentences
from rag_platform.query.answer import Citation
from rag_platform.query.passage import Passage
from rag_platform.query.prompts import NO_ANSWER
from rag_platform.query.support import Evidence, Found, Statement, share

CITED = 0.6
"""Share of support from which a citation of the model's own is kept. On 400 SQuAD questions turned into
statements: 93 % of the true ones and 31 % of those with another answer of the same article reach it, no
sentence of another article."""
UNCITED = 0.8
"""Share from which a statement without one is attributed to the passage that supports it best (76 % and 8 %)."""
_MIN_TERMS = 3
"""A statement of fewer words stands in too many places to be attributed to one."""

# No unbounded white space below: a model that goes round in circles writes thousands of line ends.
_DIGITS = r"\d{1,3}(?:\s{0,3}(?:,|;|&|and|-|–)\s{0,3}\d{1,3})*"
_KIND = r"(?:passages?|sources?|refs?|references?|documents?)"
_MARK = re.compile(
    rf"[\[【]\s{{0,3}}\^?(?:{_KIND}\s{{0,3}})?({_DIGITS})(?:†[^\]】\n]{{0,40}})?\s{{0,3}}[\]】]|\((?:see )?{_KIND} ({_DIGITS})\)",
    re.I,
)
_MARKS = rf"(?:{_MARK.pattern.replace('(' + _DIGITS + ')', '(?:' + _DIGITS + ')')})"
_BEHIND = re.compile(rf"([.!?…。！？][\"'”’)*_]{{0,3}})((?:[ \t]{{0,4}}{_MARKS})+)(?=\s|$)", re.I)
_ALONE = re.compile(rf"([.!?…。！？]?)[ \t]{{0,4}}\n\s{{0,4}}((?:[ \t]{{0,4}}{_MARKS})+)[ \t]{{0,4}}(?=\n|$)", re.I)
_LIST_OF_SOURCES = re.compile(
    rf"\n[#*_ \t]{{0,8}}(?:sources?|references?|citations?)[*_: \t]{{0,8}}"
    rf"(?:\n[ \t]{{0,4}}(?:[-*•][ \t]{{0,4}})?(?:{_MARKS}|\d{{1,2}}[.)])[^\n]*)*\s*\Z",
    re.I,
)
_CODE = re.compile(r"```.*?(?:```|$)|`[^`\n]+`", re.S)
_REFUSAL = re.compile(r"[\s\"'*`_]*NO[\s\\_]*ANSWER\b")
_DECLINES = re.compile(
    r"\b(?:passages?|documents?|context|texts?|information|sources?)\b.{0,40}\b(?:not|n[’']t|no)\b"
    r"|\b(?:cannot|can[’']t|could not|unable to|not able to)\b.{0,30}\b(?:answer|find|determine)\b"
    r"|\b(?:no|not enough|insufficient) (?:relevant )?(?:information|answer|mention)\b",
    re.I | re.S,
)
_FULL_STOP = re.compile(r"[.!?…。！？:;][\"'”’)\]*_]*$")


@dataclass(frozen=True, slots=True)
class Verified:
    """An answer of which every ``[n]`` is true.

    Attributes:
        answer: the text; ``[n]`` names citation n.
        citations: in the order of appearance, numbered from 1.
        refused: the model says that the passages do not answer; the text then is for nobody.
        grounded: more than half of the statements are supported, and at least one is cited.
    """

    answer: str
    citations: list[Citation]
    refused: bool
    grounded: bool


def verify(text: str, passages: Sequence[Passage]) -> Verified:
    """Check a model's answer against the passages that it was given.

    A ``[n]`` stays where passage n holds every number of its statement and enough of its words; a
    statement left without one is attributed to the passage that supports it strongly, if any does.
    The rest stays as text without a citation.
    """
    if _REFUSAL.match(text):
        return Verified("", [], refused=True, grounded=False)
    declined = NO_ANSWER in text
    text = _tidied(text.replace(NO_ANSWER, " "))
    check = _Check({p.number: Evidence(p) for p in passages})
    out: list[str] = []
    at = 0
    for start, end in sentences.split(text):
        out += [text[at:start], check.sentence(text[start:end])]
        at = end
    answer = "".join([*out, text[at:]]).strip()
    if not check.citations and (declined or not answer or _DECLINES.search(answer)):
        return Verified("", [], refused=True, grounded=False)
    grounded = bool(check.citations) and 2 * check.supported > check.checkable
    return Verified(answer, check.citations, refused=False, grounded=grounded)


class _Check:
    def __init__(self, evidence: dict[int, Evidence]) -> None:
        self._evidence = evidence
        self._numbers: dict[tuple[int, int, int], int] = {}
        self.citations: list[Citation] = []
        self.checkable = self.supported = 0

    def sentence(self, text: str) -> str:
        """Return the sentence with its citations verified, and count it."""
        if text.startswith(("```", "~~~")):
            return text
        parts = _parts(text)
        whole = Statement("".join(part for part, _ in parts))
        introduces = len(parts) == 1 and text.endswith((":", "："))  # "There are two ways:"
        if introduces or not whole.checkable:
            return "".join(part for part, _ in parts).rstrip()
        self.checkable += 1
        cited = False
        out = ""
        for part, claimed in parts:
            out += part
            numbers = self._kept(claimed, [Statement(part), whole])
            if claimed:
                out = out.rstrip()
            if numbers:
                cited = True
                out += " " + "".join(f"[{n}]" for n in numbers)
        if not cited:
            number = self._strongest(whole)
            if number is not None:
                cited = True
                stop = _FULL_STOP.search(out.rstrip())
                place = stop.start() if stop else len(out.rstrip())
                out = f"{out[:place].rstrip()} [{number}]{out[place:]}"
        self.supported += cited
        return out.rstrip()

    def _kept(self, claimed: Sequence[int], statements: Sequence[Statement]) -> list[int]:
        """Return the new numbers of the claimed passages that support one of ``statements``, each by itself
        or, where none does, all of them together."""
        known = [n for n in dict.fromkeys(claimed) if n in self._evidence]
        kept: dict[int, None] = {}
        for statement in statements:
            if not statement.checkable:
                continue
            found = {n: self._evidence[n].find(statement) for n in known}
            alone = [n for n in known if share(statement, [found[n]]) >= CITED]
            parts = [n for n in known if found[n].terms]
            if not alone and len(parts) > 1 and share(statement, [found[n] for n in parts]) >= CITED:
                alone = parts
            kept.update(dict.fromkeys(self._cite(n, found[n]) for n in alone))
            if kept:
                break
        return list(kept)

    def _strongest(self, statement: Statement) -> int | None:
        if len(statement.terms) < _MIN_TERMS:
            return None
        found = {number: evidence.find(statement) for number, evidence in self._evidence.items()}
        shares = {number: share(statement, [f]) for number, f in found.items()}
        best = max(shares, key=lambda n: (shares[n], -n), default=None)
        return self._cite(best, found[best]) if best is not None and shares[best] >= UNCITED else None

    def _cite(self, number: int, found: Found) -> int:
        key = (number, found.start, found.end)
        if key not in self._numbers:
            self._numbers[key] = len(self.citations) + 1
            passage = self._evidence[number].passage
            start, end = passage.start + found.start, passage.start + found.end
            quote = passage.text[found.start : found.end]
            self.citations.append(passage.citation(self._numbers[key], start, end, quote, passage.score))
        return self._numbers[key]


def _parts(text: str) -> list[tuple[str, list[int]]]:
    """Cut a sentence behind each group of marks: (text before it, passages it names)."""
    code = [m.span() for m in _CODE.finditer(text)]
    parts: list[tuple[str, list[int]]] = []
    at = 0
    for match in _MARK.finditer(text):
        if any(a <= match.start() < b for a, b in code):
            continue
        before = text[at : match.start()]
        if parts and not before.strip():
            parts[-1][1].extend(_named(match))
        else:
            parts.append((before, _named(match)))
        at = match.end()
    return [*parts, (text[at:], [])]


def _named(match: re.Match[str]) -> list[int]:
    numbers: list[int] = []
    for piece in re.split(r"\s*(?:,|;|&|and)\s*", match.group(1) or match.group(2), flags=re.I):
        first, *last = (int(n) for n in re.split(r"\s*[-–]\s*", piece))
        numbers += range(first, min(last[0], first + 20) + 1) if last else [first]
    return numbers


def _tidied(text: str) -> str:
    """Put marks that stand behind a full stop, or on a line of their own, into the sentence they belong to."""
    text = _LIST_OF_SOURCES.sub("", text)
    text = _ALONE.sub(r" \2\1", text)
    return _BEHIND.sub(r" \2\1", text)
