"""Words of which one in place of the other turns a question round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

_PAIRS = (
    ("before prior preceding earlier", "after following since later"),
    ("first earliest initial initially oldest", "last latest final finally newest recent youngest"),
    ("enable enables enabled enabling activate activated", "disable disables disabled disabling deactivate deactivated"),
    ("min minimum minimal least fewest", "max maximum maximal most"),
    ("lowest smallest least fewest shortest bottom", "highest largest most biggest greatest longest tallest top"),
    ("increase increases increased increasing rise rises grow grows grew raise", "decrease decreases decreased decreasing "
     "fall falls decline declines declined reduce reduces reduced shrink lower"),
    ("more higher larger greater bigger longer above", "less lower smaller fewer shorter below"),
    ("start starts started begin begins began starting beginning open opens opened opening", "stop stops stopped end ends "
     "ended finish finished ending close closes closed closing"),
    ("add adds added adding create creates created creating install installs installed installing",
     "remove removes removed removing delete deletes deleted deleting uninstall uninstalls uninstalled"),
    ("allow allows allowed permit permits permitted accept accepts", "deny denies denied forbid forbids forbidden block "
     "blocks blocked reject rejects rejected prevent prevents"),
    ("win wins won winner winning", "lose loses lost loser losing"),
    ("import imports imported download downloads downloaded input read reads",
     "export exports exported upload uploads uploaded output write writes"),
    ("advantage advantages benefit benefits pros strength strengths", "disadvantage disadvantages drawback drawbacks cons "
     "weakness weaknesses"),
    ("buy buys bought purchase", "sell sells sold sale"),
    ("born birth", "die dies died death dead"),
    ("up upgrade upgrades upgraded upgrading", "down downgrade downgrades downgraded downgrading"),
    ("inside internal inner indoor", "outside external outer outdoor"),
    ("north northern", "south southern"),
    ("east eastern", "west western"),
    ("left", "right"),
    ("male man men husband father king son brother", "female woman women wife mother queen daughter sister"),
    ("public", "private"),
    ("lock locks locked encrypt encrypted encode", "unlock unlocks unlocked decrypt decrypted decode"),
    ("positive", "negative"),
    ("hot warm hottest warmest", "cold cool coldest coolest"),
    ("arrive arrives arrived arrival", "leave leaves left depart departs departed departure"),
    ("true", "false"),
    ("success succeed succeeds succeeded successful", "failure fail fails failed"),
    ("sync synchronous", "async asynchronous"),
    ("horizontal horizontally", "vertical vertically"),
    ("rich richer richest", "poor poorer poorest"),
    ("cause causes caused", "effect effects result results consequence consequences"),
    ("parent", "child"),
    ("client", "server"),
    ("source", "target destination"),
    ("valid", "invalid"),
    ("on", "off"),
    ("to into onto", "from"),
    ("in", "out"),
    ("over", "under"),
    ("and", "or"),
)  # fmt: skip


def _both_ways() -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for left, right in _PAIRS:
        for word in left.split():
            found[word].update(right.split())
        for word in right.split():
            found[word].update(left.split())
    return {word: frozenset(others) for word, others in found.items()}


OPPOSITES = _both_ways()
"""The opposites of a folded word."""
