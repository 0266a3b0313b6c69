"""What of a candidate a model reads."""

from __future__ import annotations

import re

from rag_platform.backends.rerankers.base import Candidate

_FILE_NAME = re.compile(r"\.\w{1,8}$")


def passage(candidate: Candidate) -> str:
    """Return the candidate's text below the heading path that says where it stands (without one: below its
    title, unless that is a file's name); just the text where it begins with that anyway."""
    place = candidate.heading_path or ("" if _FILE_NAME.search(candidate.title) else candidate.title)
    if not place or candidate.text.lstrip("# ").startswith(place):
        return candidate.text
    return f"{place}\n\n{candidate.text}"
