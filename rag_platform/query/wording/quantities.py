"""The numbers of a question, with their units."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBER_WORDS = {
    w: str(n)
    for n, w in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    )
    if w != "one"  # "which one"
} | {"dozen": "12", "hundred": "100", "thousand": "1000", "million": "1000000", "billion": "1000000000"}
_ORDINALS = {
    w: str(n)
    for n, w in enumerate(("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"), 2)
}
_UNITS = {
    form: forms.split()[0]
    for forms in (
        "% percent percentage pct",
        "ms millisecond milliseconds msec",
        "s sec secs second seconds",
        "min mins minute minutes",
        "h hr hrs hour hours",
        "d day days",
        "week weeks",
        "month months",
        "y yr yrs year years",
        "decade decades",
        "century centuries",
        "b byte bytes",
        "kb kib kilobyte kilobytes",
        "mb mib megabyte megabytes",
        "gb gib gigabyte gigabytes",
        "tb tib terabyte terabytes",
        "mm millimetre millimeter millimetres millimeters",
        "cm centimetre centimeter centimetres centimeters",
        "m metre meter metres meters",
        "km kilometre kilometer kilometres kilometers",
        "mi mile miles",
        "ft foot feet",
        "in inch inches",
        "g gram grams",
        "kg kilogram kilograms kilo kilos",
        "t ton tons tonne tonnes",
        "lb lbs pound pounds",
        "l litre liter litres liters",
        "° degree degrees",
        "c celsius",
        "f fahrenheit",
        "k kelvin",
        "$ dollar dollars usd",
        "€ euro euros eur",
        "£ gbp",
    )
    for form in forms.split()
}
_NUMBER = re.compile(r"^v?(\d[\d.,]*)([a-z%°]*)$")


def quantities(words: Sequence[str]) -> frozenset[tuple[str, str]]:
    """Return (number, unit) of every number; a number of another shape (1.28.3-rc1, 10/12) as it stands."""
    found = set()
    for n, word in enumerate(words):
        after = words[n + 1] if n + 1 < len(words) else ""
        before = words[n - 1] if n else ""
        number, unit = _NUMBER_WORDS.get(word), ""
        if number is None and word in _ORDINALS and _is_ordinal(word, before):
            number, unit = _ORDINALS[word], "th"
        if number is None and any(c.isdigit() for c in word):
            plain = _NUMBER.match(word)
            number, unit = (plain[1].replace(",", "").rstrip("."), plain[2]) if plain else (word, "")
            unit = "th" if unit in ("st", "nd", "rd", "th") else _UNITS.get(unit, unit)
        if number is not None:
            found.add((number, unit or _UNITS.get(after, "") or (_UNITS[before] if before in "$€£" and before else "")))
    return frozenset(found)


def _is_ordinal(word: str, before: str) -> bool:
    """``a second``, ``10 second`` and ``per second`` are time."""
    return word != "second" or not (before in ("a", "per", "each", "every") or any(c.isdigit() for c in before))


def is_number(word: str) -> bool:
    """Whether a folded word is compared by ``quantities``."""
    return any(c.isdigit() for c in word) or word in _NUMBER_WORDS
