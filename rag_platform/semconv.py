"""Names of span attributes. The `gen_ai.*` conventions are in development and their constants move between
packages, so the ones in use are written here once (OpenTelemetry semantic conventions, GenAI, 2026).
"""

from __future__ import annotations

from typing import Final

OPERATION: Final = "gen_ai.operation.name"  # chat, embeddings, rerank, retrieval
PROVIDER: Final = "gen_ai.provider.name"
SYSTEM: Final = "gen_ai.system"  # the older name of PROVIDER; LangSmith still reads it
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"

OPENINFERENCE_KIND: Final = "openinference.span.kind"  # Phoenix: CHAIN, LLM, EMBEDDING, RETRIEVER, RERANKER

REQUEST_ID: Final = "rag.request_id"
RELEASE: Final = "rag.release_id"
PROFILE: Final = "rag.profile"
MODE: Final = "rag.mode"
CACHE: Final = "rag.cache"
DEGRADED: Final = "rag.degraded"
REFUSED: Final = "rag.refused"
COST_USD: Final = "rag.cost_usd"
HITS: Final = "rag.hits"
CANDIDATES: Final = "rag.candidates"
CHUNK_IDS: Final = "rag.chunk_ids"
