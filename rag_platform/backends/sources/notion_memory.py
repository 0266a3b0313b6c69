"""What lies inside which Notion page, remembered from one listing to the next.

To find the pages inside a page, its blocks must be read, at three requests a second. A page that was not
edited since holds what it held. This is a cache in a file: without it, a listing takes longer and finds
the same.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

_FORMAT = 1
Inside = list[tuple[str, str]]
"""(``child_page`` or ``child_database``, id)"""


class NotionMemory:
    """Safe for one listing at a time; of two at once, the one that ends later is kept.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pages: dict[str, tuple[str, Inside]] = {}
        try:
            stored = json.loads(path.read_text("utf-8"))
            if stored["format"] == _FORMAT:
                self._pages = {
                    id_: (edited, [(k, i) for k, i in inside]) for id_, (edited, inside) in stored["pages"].items()
                }
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            logger.warning("%s cannot be read and is made anew", path)

    def inside(self, page_id: str, edited: str | None) -> Inside | None:
        """Return what a page held when it was last edited then (None: at any time); None when that is unknown."""
        known = self._pages.get(page_id)
        return known[1] if known is not None and edited in (known[0], None) else None

    def remember(self, page_id: str, edited: str, inside: Inside) -> None:
        self._pages[page_id] = (edited, inside)

    def forget_others(self, page_ids: set[str]) -> None:
        """Forget every page but these."""
        self._pages = {id_: known for id_, known in self._pages.items() if id_ in page_ids}

    def save(self) -> None:
        """Write the file; a disk that refuses is logged and costs time only."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"format": _FORMAT, "pages": self._pages}, file)
            Path(name).replace(self._path)
        except OSError as e:
            logger.warning("%s cannot be written: %s", self._path, e.strerror)
