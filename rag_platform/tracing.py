"""OpenTelemetry spans, off until an endpoint is configured, and then never in the way.

Without `RAG_OTLP_ENDPOINTS` a span costs a function call. With it, spans go to every endpoint by OTLP over
HTTP from a background thread; a collector that hangs costs no question anything and the exit two seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rag_platform import semconv
from rag_platform.errors import ConfigurationError, RagError
from rag_platform.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

EXPORT_TIMEOUT_S = 2
SHUTDOWN_TIMEOUT_MS = 2000

_KINDS = {"chat": "LLM", "embeddings": "EMBEDDING", "rerank": "RERANKER", "retrieval": "RETRIEVER"}


class Span:
    """What a step may say about itself. Attributes hold names, counts and ids; texts only by ``content``."""

    __slots__ = ("_content", "_span")

    def __init__(self, span: Any = None, content: bool = False) -> None:
        self._span, self._content = span, content

    def set(self, attributes: Mapping[str, Any]) -> None:
        if self._span is not None:
            self._span.set_attributes({k: v for k, v in attributes.items() if v is not None})

    def content(self, attribute: str, text: str) -> None:
        """Attach a text, where `RAG_CAPTURE_CONTENT` allows it."""
        if self._span is not None and self._content:
            self._span.set_attribute(attribute, text)

    @property
    def trace_id(self) -> str | None:
        """32 hex digits; None without tracing."""
        return None if self._span is None else format(self._span.get_span_context().trace_id, "032x")


_NO_SPAN = Span()


class Tracing:
    """The tracer of one service. ``Tracing.off`` traces nothing."""

    off: Tracing

    def __init__(self, tracer: Tracer | None = None, provider: TracerProvider | None = None, *, content: bool = False):
        self._tracer, self._provider, self._content = tracer, provider, content

    @classmethod
    def from_settings(cls, settings: Settings) -> Tracing:
        """Start exporters for every configured endpoint; does not connect.

        Raises:
            ConfigurationError: an endpoint or header cannot be read.
        """
        endpoints = [e.strip() for e in settings.otlp_endpoints.split(",") if e.strip()]
        if not endpoints:
            return cls.off
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        headers = _headers(settings.otlp_headers)
        provider = TracerProvider(resource=Resource.create({"service.name": "rag-platform"}), shutdown_on_exit=False)
        for endpoint in endpoints:
            if not endpoint.startswith(("http://", "https://")):
                raise ConfigurationError("RAG_OTLP_ENDPOINTS: each must begin with http:// or https://")
            exporter = OTLPSpanExporter(endpoint=endpoint, headers=headers, timeout=EXPORT_TIMEOUT_S)
            provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=4096))
        return cls(provider.get_tracer("rag_platform"), provider, content=settings.capture_content)

    @contextlib.contextmanager
    def span(self, name: str, operation: str | None = None, **attributes: Any) -> Iterator[Span]:
        """Open a span around the block. ``operation`` is one of the GenAI operations, None for our own steps."""
        if self._tracer is None:
            yield _NO_SPAN
            return
        from opentelemetry.trace import Status, StatusCode

        kind = _KINDS.get(operation or "", "CHAIN")
        opened = {semconv.OPENINFERENCE_KIND: kind, **attributes} | (
            {semconv.OPERATION: operation} if operation else {}
        )
        # Exceptions are recorded by class alone: their messages are not known to be free of content.
        with self._tracer.start_as_current_span(
            name, attributes=opened, record_exception=False, set_status_on_exception=False
        ) as raw:
            try:
                yield Span(raw, self._content)
            except BaseException as e:
                raw.set_attribute("error.type", type(e).__name__)
                if isinstance(e, RagError | TimeoutError):
                    raw.set_status(Status(StatusCode.ERROR, type(e).__name__))
                raise

    def shutdown(self) -> None:
        """Send what is left, for two seconds at most."""
        if self._provider is not None:
            self._provider.force_flush(SHUTDOWN_TIMEOUT_MS)
            self._provider.shutdown()


Tracing.off = Tracing()


def _headers(raw: str) -> dict[str, str]:
    headers = {}
    for pair in filter(None, (p.strip() for p in raw.split(","))):
        name, separator, value = pair.partition("=")
        if not separator or not name.strip():
            raise ConfigurationError("RAG_OTLP_HEADERS: write name=value, separated by commas")
        headers[name.strip()] = value.strip()
    return headers
