"""What can be set about the HTTP server: ``RAG_HTTP_<FIELD>``."""

from __future__ import annotations

from dataclasses import dataclass

from rag_platform.errors import ConfigurationError
from rag_platform.settings import Settings, setting


@dataclass(frozen=True)
class HttpSettings:
    """Limits of the server as a whole; those of one key are in ``serve/limits.py``."""

    max_in_flight: int = setting(32, "Questions worked on at once; exact cache hits do not count.")
    max_waiting: int = setting(64, "Questions that may wait for a free place; further ones are refused with 503.")
    max_wait_s: float = setting(1.0, "Longest wait for a free place, in seconds.")
    read_timeout_s: float = setting(10.0, "Seconds in which a request must have arrived completely.")
    shutdown_delay_s: float = setting(
        0.0, "Seconds between 'not ready' and closing the port, for a load balancer to notice."
    )
    shutdown_grace_s: float = setting(30.0, "Seconds that requests in flight have to finish when the server stops.")

    @classmethod
    def read(cls, settings: Settings) -> HttpSettings:
        """
        Raises:
            ConfigurationError: a value cannot be read or makes no sense; names the variable.
        """
        http = settings.vendor(cls, "RAG_HTTP_")
        for name in ("max_in_flight", "read_timeout_s"):
            if getattr(http, name) <= 0:
                raise ConfigurationError(f"RAG_HTTP_{name.upper()}: must be above 0 (is {getattr(http, name)!r})")
        for name in ("max_waiting", "max_wait_s", "shutdown_delay_s", "shutdown_grace_s"):
            if getattr(http, name) < 0:
                raise ConfigurationError(f"RAG_HTTP_{name.upper()}: must not be below 0 (is {getattr(http, name)!r})")
        return http
