"""A small corpus of which everything is known: machines, each with a few facts, and a question for each fact."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

NAMES = (
    "Alder", "Birch", "Cedar", "Dogwood", "Elder", "Fir", "Ginkgo", "Hazel", "Ironwood", "Juniper", "Katsura", "Larch",
)  # fmt: skip
_FACTS = (
    ("The {0} pump delivers {1} litres a minute.", "How many litres a minute does the {0} pump deliver?", 410),
    ("The {0} pump weighs {1} kilograms.", "How many kilograms does the {0} pump weigh?", 73),
    ("The {0} pump needs {1} volts.", "How many volts does the {0} pump need?", 240),
    ("The {0} pump was first sold in {1}.", "In which year was the {0} pump first sold?", 1961),
    ("The {0} pump costs {1} euros.", "How many euros does the {0} pump cost?", 5200),
    ("The warranty of the {0} pump lasts {1} months.", "How many months does the warranty of the {0} pump last?", 18),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, the uri of the only document that answers it, and what a right answer holds."""

    text: str
    uri: str
    fact: str


def documents() -> dict[str, str]:
    """Return the text of each document by uri."""
    made = {}
    for row, name in enumerate(NAMES):
        facts = " ".join(sentence.format(name, first + row) for sentence, _, first in _FACTS)
        made[_uri(name)] = f"# The {name} pump\n\n{facts}\n"
    return made


def questions() -> Iterator[Asked]:
    """Yield every question once."""
    for (row, name), (_, question, first) in itertools.product(enumerate(NAMES), _FACTS):
        yield Asked(question.format(name), _uri(name), str(first + row))


def _uri(name: str) -> str:
    return f"{name.lower()}.md"
