"""A small corpus with known answers, for tests that evaluate the real pipeline."""

from __future__ import annotations

from pathlib import Path

from rag_platform.evaluation.golden import GoldenCase, GoldenSet, GoldSpan
from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import SourceSpec
from rag_platform_tests import harness

HANDBOOK = """# Operations handbook

## Signing keys

The signing key is rotated every 90 days by the platform team. A rotation takes eleven minutes, and two people of the
platform team must be present while it lasts.

## Restore drill

The restore drill at Harbour took 47 minutes in March. The target of a restore drill is one hour, counted from the
first alarm to the first answered question.

## Cold store

The cold store keeps nightly copies for 35 days. Copies that are older are destroyed by the storage service itself.
"""
GARDEN = """The roof garden opens at eight and closes at sunset. Bees live in the two hives near the north wall.

Visitors of the roof garden sign the green book at the reception before they take the lift.
"""
PUMPS = """# Pumps

The bilge pump of the barge Albatross moves 410 litres a minute. Its impeller is replaced every second winter.

The fire pump is tested on the first Monday of a month, at ten in the morning.
"""
SALARIES = "The salary band of a senior engineer starts at 91,000 euros. Bands are reviewed in May.\n"


def case(
    case_id: str,
    question: str,
    answer: str | None,
    *spans: tuple[str, str],
    must_refuse: bool = False,
    groups: tuple[str, ...] = ("public",),
) -> GoldenCase:
    gold = tuple(GoldSpan(uri, quote) for uri, quote in spans)
    return GoldenCase(case_id, question, answer, gold, must_refuse=must_refuse, groups=groups)


CASES = (
    case(
        "keys",
        "How often is the signing key rotated?",
        "every 90 days",
        ("handbook.md", "The signing key is rotated every 90 days by the platform team."),
    ),
    case(
        "drill",
        "How long did the restore drill at Harbour take?",
        "47 minutes",
        ("handbook.md", "The restore drill at Harbour took 47 minutes in March."),
    ),
    case(
        "cold",
        "For how many days does the cold store keep nightly copies?",
        "35 days",
        ("handbook.md", "The cold store keeps nightly copies for 35 days."),
    ),
    case(
        "garden",
        "When does the roof garden open?",
        "eight",
        ("garden.txt", "The roof garden opens at eight and closes at sunset."),
    ),
    case(
        "pump",
        "How many litres a minute does the bilge pump of the Albatross move?",
        "410 litres a minute",
        ("pumps.md", "The bilge pump of the barge Albatross moves 410 litres a minute."),
    ),
    case(
        "both",
        "When is the fire pump tested, and when does the roof garden close?",
        None,
        ("pumps.md", "The fire pump is tested on the first Monday of a month, at ten in the morning."),
        ("garden.txt", "The roof garden opens at eight and closes at sunset."),
    ),
    case(
        "salary",
        "Where does the salary band of a senior engineer start?",
        "91,000 euros",
        ("salaries.txt", "The salary band of a senior engineer starts at 91,000 euros."),
        groups=("staff",),
    ),
    case("mongolia", "What is the capital of Mongolia?", None, must_refuse=True),
)
GOLDEN = GoldenSet("small", CASES)


def specs(folder: Path) -> list[SourceSpec]:
    """Write the corpus below ``folder`` and return its sources; salaries are for the group staff."""
    tree, secret = harness.Tree(folder / "docs"), harness.Tree(folder / "secret")
    tree.become({"handbook.md": HANDBOOK, "garden.txt": GARDEN, "pumps.md": PUMPS})
    secret.become({"salaries.txt": SALARIES})
    return [tree.spec(), secret.spec("hr", acl=("staff",))]


def ingested(bench: Workbench, folder: Path, run_id: str = "r1") -> None:
    """Write and ingest the corpus; its release serves afterwards."""
    harness.ingest(bench, specs(folder), run_id)
