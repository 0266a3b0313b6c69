"""How long a server asks us to wait."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping

_LONGEST_S = 24 * 3600.0


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read ``retry-after-ms`` or ``Retry-After`` (seconds or an HTTP date, RFC 9110 §10.2.3); at most a day.

    Args:
        headers: of the response, looked up without regard to case.
    """
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        raw = headers.get(name)
        if raw is None:
            continue
        try:
            seconds = float(raw) * scale
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(raw).timestamp() - time.time()
            except ValueError:
                continue
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), _LONGEST_S)
    return None
