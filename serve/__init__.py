"""The HTTP API: a thin layer of Litestar around ``rag_platform.query``. The only place that knows HTTP."""
