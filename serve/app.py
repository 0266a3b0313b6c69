"""The application factory. ``uvicorn --factory serve.app:create_app`` works; ``rag serve`` is the usual way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar

from rag_platform.evaluation.gauges import ScoreGauges
from rag_platform.ledger import open_ledger
from rag_platform.query.service import QueryService
from rag_platform.settings import Settings
from serve import problems
from serve.api import Api
from serve.auth import Authenticator
from serve.boundary import Boundary
from serve.documents import DocumentTexts
from serve.routes import chat, citations, feedback, operations, playground, query, schema
from serve.service_protocol import AnsweringService
from serve.settings import HttpSettings
from serve.shedding import Gate


def create_app(
    settings: Settings | None = None,
    service: AnsweringService | None = None,
    *,
    bound_host: str | None = None,
) -> Litestar:
    """Return the API. Nothing outside this process is touched before it starts, and nothing needs to be up then.

    Args:
        settings: default: of the environment.
        service: default: the query service of these settings. Started and closed with the application.
        bound_host: address that the server listens on; without it, every caller needs an API key.

    Raises:
        ConfigurationError: a setting makes no sense.
    """
    settings = settings or Settings.from_env()
    http = HttpSettings.read(settings)
    ledger = open_ledger(settings, lazy=True)
    service = service or QueryService(settings, document_text=DocumentTexts(settings, ledger))
    authenticator = Authenticator(ledger, settings, bound_host=bound_host)
    gate = Gate(http.max_in_flight, http.max_waiting, http.max_wait_s)
    api = Api(settings, http, service, authenticator, gate, ScoreGauges(ledger))

    @asynccontextmanager
    async def running(_: Litestar) -> AsyncIterator[None]:
        authenticator.start()
        await api.service.start()
        try:
            yield
        finally:
            await api.service.aclose()
            await asyncio.to_thread(authenticator.close)
            api.scores.close()
            ledger.close()

    app = Litestar(
        route_handlers=[
            *query.routes(api),
            *chat.routes(api),
            *feedback.routes(api),
            *citations.routes(api),
            *operations.routes(api),
            *schema.routes(),
            *playground.routes(),
        ],
        exception_handlers={Exception: problems.respond},
        lifespan=[running],
        openapi_config=None,  # see openapi.py
        logging_config=None,
        cors_config=None,  # closed: a bare CORSConfig() would let every site in
        debug=False,
    )
    app.state.api = api
    app.asgi_handler = Boundary(app.asgi_handler)  # around the router, so that it also holds for what has no route
    return app
