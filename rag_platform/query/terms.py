"""The words of a question that an answer can be expected to share with it."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_RUN = re.compile(rf"[{_UNSPACED}]+|(?:(?![{_UNSPACED}])\w)+(?:[.,'’](?=\w)(?:(?![{_UNSPACED}])\w)+)*")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")
_PART = re.compile(r"[^\W_]+")

_STOP = frozenset(
    re.findall(
        r"\S+",
        """a about above after again against all also am an and any are as at be because been before being below
        between both but by can could did do does doing done down during each else ever few for from further get gets
        give given had has have having he her here hers herself him himself his how i if in into is it its itself just
        let like many may me might more most much must my myself no nor not of off on once one only or other ought our
        ours out over own please same say shall she should so some such tell than that the their theirs them then there
        these they this those through to too under until up upon us use used using very was we were what when where
        whether which while who whom whose why will with within without would you your yours yourself
        s t re ve ll d m don doesn didn isn aren wasn weren won wouldn couldn shouldn haven hasn hadn
        called known name named kind type way happen happens happened mean means""",
    )
)


def terms(text: str) -> list[str]:
    """Return the stems of the words that carry meaning, in order, repeated words repeated. A word with a dot or
    an underscore gives its parts; a script without spaces gives pairs of characters."""
    found: list[str] = []
    text = (text if text.isascii() else unicodedata.normalize("NFKC", text)).lower()
    for match in _RUN.finditer(text):
        run = match.group()
        if _IS_UNSPACED.match(run):
            found += [a + b for a, b in itertools.pairwise(run)] or [run]
        elif _is_number(run):
            found.append(run.replace(",", ""))
        else:
            found += [stem(part) for part in _PART.findall(run) if part not in _STOP]
    return found


def is_stop_word(word: str) -> bool:
    """Tell whether a lower-case word carries no meaning by itself."""
    return word in _STOP


def _is_number(word: str) -> bool:
    return word[0].isdigit() and word.replace(",", "").replace(".", "").isdigit()


@functools.lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """Return an English word without its inflection, roughly: ``stopping`` and ``stops`` are ``stop``."""
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "xes", "ches", "shes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for suffix in ("ing", "ed", "ly"):
        bare = word.removesuffix(suffix)
        if bare != word and len(bare) >= 3 and re.search("[aeiouy]", bare):
            doubled = len(bare) > 3 and bare[-1] == bare[-2] and bare[-1] not in "lsz"
            word = bare[:-1] if doubled else bare
            break
    return word.removesuffix("e") if len(word) > 3 else word
