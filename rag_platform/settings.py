"""One frozen settings object, and the only reader of the environment.

Every setting is a field with an environment variable ``RAG_<FIELD>`` and a sentence of
documentation; ``rag config show`` prints them with where each value came from. Settings of one
vendor are a dataclass in the vendor's own file, read through ``Settings.vendor``.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rag_platform.errors import ConfigurationError

T = TypeVar("T")


def setting(default: Any, doc: str, *, secret: bool = False) -> Any:
    """Declare one setting: its default and one sentence about it."""
    return field(default=default, metadata={"doc": doc, "secret": secret})


@dataclass(frozen=True)
class Settings:
    """Everything that can be set, resolved once and passed down."""

    home: Path = setting(Path(".rag"), "Folder of all state, Dagster's included.")
    sources_file: Path | None = setting(None, "sources.yaml; default: RAG_HOME/sources.yaml, when it exists.")
    ledger_url: str | None = setting(
        None,
        "SQLAlchemy URL of the ledger; default: SQLite in RAG_HOME. PostgreSQL: postgresql+psycopg2://…",
        secret=True,
    )
    ledger_timeout_s: float = setting(
        60.0, "Seconds that one statement of the ledger may take on PostgreSQL, waiting for other writers included."
    )
    dagster_postgres_url: str | None = setting(
        None,
        "PostgreSQL for Dagster's runs, events and schedules (postgresql+psycopg2://…); default: SQLite in RAG_HOME.",
        secret=True,
    )
    object_store_url: str | None = setting(
        None, "Where bytes and segments live (any fsspec URL); default: RAG_HOME/objects."
    )
    index_url: str | None = setting(
        None, "Where the LanceDB index lives (folder or object-store URL); default: RAG_HOME/index."
    )
    keyword_replica_url: str | None = setting(
        None,
        "Where the keyword replica of a server store lives (folder or object-store URL), or none; default: "
        "RAG_HOME/keyword_replica.",
    )
    golden_dir: Path | None = setting(None, "Folder of the golden sets (docs/evaluation.md); default: RAG_HOME/golden.")
    cache_dir: Path | None = setting(None, "Folder for derived model files; default: the user's cache folder.")

    partition_hex_digits: int = setting(
        1, "Hash buckets: 1 gives 16 partitions, 2 gives 256 (above half a million documents)."
    )
    source_max_deletion_share: float = setting(
        0.3, "Mass-change guard: a source that loses more than this share of its documents waits for approval."
    )
    source_min_guarded_documents: int = setting(
        10, "Mass-change guard: sources with fewer documents are guarded only against becoming empty."
    )
    max_dead_letter_share: float = setting(
        0.2, "Open dead letters per live document above which a run reports failure (exit code 3)."
    )
    max_document_bytes: int = setting(200 * 1024 * 1024, "Larger files become dead letters without being fetched.")
    allow_private_addresses: bool = setting(False, "Let http(s) sources reach private and loopback addresses.")
    buckets_per_run: int = setting(
        0, "Largest number of neighbouring buckets in one run of the sensor, a schedule or a backfill; 0: no limit."
    )
    sensor_interval_s: int = setting(30, "Seconds between two looks of the source_changes sensor.")
    run_retention_days: int = setting(30, "Dagster runs older than this are deleted by the clean-up job.")
    freshness_hours: float = setting(24.0, "A source not listed completely for longer than this is late.")

    parse_workers: int = setting(0, "Parser processes; 0 means one a core, at most 4.")
    parse_cpu_s: int = setting(120, "CPU seconds that one document may use.")
    parse_wall_s: int = setting(180, "Wall seconds that one document may use.")
    parse_memory_mb: int = setting(2048, "Address space that one parser process may use.")
    max_text_chars: int = setting(20_000_000, "Characters of text that one document may yield.")
    max_pages: int = setting(5000, "Pages that one document may have.")
    ocr: str = setting("auto", "auto: read pages without text by OCR; off: never.")
    ocr_max_pages: int = setting(200, "Pages of one document that may be read by OCR.")
    parse_ocr_page_s: int = setting(60, "CPU and wall seconds that each page read by OCR adds to a document's.")
    languages: str = setting("eng", "OCR languages for tesseract, joined by +.")

    chunker: str = setting("recursive", "recursive, fixed, markdown or semantic.")
    chunk_tokens: int = setting(200, "Largest chunk, in tokens of the embedder.")
    chunk_overlap_tokens: int = setting(0, "Tokens that neighbouring chunks share.")

    embedder: str = setting("onnx_minilm", "onnx_minilm (local) or openai_compatible.")
    embed_workers: int = setting(0, "Embedder sessions; 0 means one a core, at most 4.")
    embed_timeout_s: float = setting(120.0, "Deadline of one embedding batch, retries included.")

    vector_store: str = setting("lancedb", "lancedb (embedded), weaviate or qdrant (servers; see docs/backends).")
    fusion: str = setting("linear", "linear (min-max normalised sum) or rrf (reciprocal rank fusion).")
    fusion_vector_weight: float = setting(0.45, "Weight of the vector leg in the linear fusion, 0 to 1.")
    candidates: int = setting(50, "Hits that each leg contributes to the fusion.")

    profile: str = setting("balanced", "Steps and budgets of a question that names none: fast, balanced or thorough.")
    llm: str = setting("extractive", "extractive (quotes, no model) or openai_compatible (see RAG_LLM_…).")
    llm_fallback: str = setting("", "A second LLM for when the first fails: openai_compatible (RAG_LLM_FALLBACK_…).")
    reranker: str = setting("maxsim", "maxsim (local), cross_encoder, cohere_compatible or none.")
    reranker_fallback: str = setting("", "A second reranker for when the first fails.")
    cache: str = setting("in_process", "in_process, redis or none.")
    cache_ttl_s: float = setting(3600.0, "Seconds that an answer may be served from the cache.")
    cache_entries: int = setting(10_000, "Answers, and question vectors, that the in-process cache holds.")
    semantic_threshold: float = setting(
        0.88, "Similarity from which another wording may be answered from the cache; 1.01 switches that off."
    )
    query_log: str = setting("metadata", "metadata (no texts), full (question and answer too) or off.")
    query_log_days: int = setting(
        90, "Days after which the clean-up job deletes rows of the query log, and feedback; 0 keeps them."
    )
    query_log_pepper: str | None = setting(
        None,
        "Key of the question hashes in the query log, the same on every server; default: RAG_HOME/query_log.pepper.",
        secret=True,
    )
    key_cache_s: float = setting(600.0, "Seconds that known API keys keep working while the ledger does not answer.")
    release_poll_s: float = setting(2.0, "Seconds between two looks at which release serves.")
    dagster_url: str | None = setting(None, "Address of the Dagster UI, for links from citations to runs.")
    prices_file: Path | None = setting(None, "YAML with prices that genai-prices does not know.")
    otlp_endpoints: str = setting("", "Comma-separated OTLP/HTTP trace endpoints; empty: no traces.")
    otlp_headers: str = setting("", "Headers of those endpoints as name=value, by commas.", secret=True)
    capture_content: bool = setting(False, "Put questions and answers into spans.")

    gate: str = setting(
        "on", "on: a later release serves only when it passes the golden sets; off: when it is complete."
    )
    candidate_retention_days: int = setting(
        14, "Days after which the clean-up job drops a release that never served and that no setting makes; 0 keeps it."
    )
    evaluation_retention_days: int = setting(
        365, "Days after which the clean-up job deletes an evaluation and its cases; 0 keeps them."
    )
    evaluation_schedule: str = setting("23 4 * * 1", "When the serving release is evaluated (cron, UTC).")
    judge: str = setting("none", "none or openai_compatible: the model that judges answers (see RAG_JUDGE_…).")
    judge_timeout_s: float = setting(120.0, "Deadline of one metric of one answer, in seconds, retries included.")
    judge_daily_usd: float = setting(0.0, "Dollars that judging may cost on one day (UTC); 0: no limit.")
    judge_daily_tokens: int = setting(2_000_000, "Tokens that judging may use on one day (UTC); 0: no limit.")
    eval_sample_rate: float = setting(
        0.01, "Share of the logged questions whose answers are judged, by a hash of trace or request, 0 to 1."
    )

    dead_letter_max_attempts: int = setting(5, "Automatic replays of one dead letter before it waits for a person.")
    dead_letter_backoff_s: float = setting(3600.0, "Wait before the first automatic replay; doubles with each attempt.")

    environ: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False, metadata={"internal": True})

    # ── derived places ──
    @property
    def root(self) -> Path:
        """RAG_HOME, absolute."""
        return Path(self.home).expanduser().absolute()

    @property
    def dagster_home(self) -> Path:
        return self.root / "dagster"

    @property
    def resolved_ledger_url(self) -> str:
        return self.ledger_url or f"sqlite:///{self.root / 'ledger.sqlite'}"

    @property
    def resolved_object_store_url(self) -> str:
        return self.object_store_url or str(self.root / "objects")

    @property
    def resolved_index_url(self) -> str:
        return self.index_url or str(self.root / "index")

    @property
    def resolved_keyword_replica_url(self) -> str | None:
        """None: no replica is kept."""
        if self.keyword_replica_url == "none":
            return None
        return self.keyword_replica_url or str(self.root / "keyword_replica")

    @property
    def resolved_sources_file(self) -> Path:
        return self.sources_file or self.root / "sources.yaml"

    @property
    def resolved_golden_dir(self) -> Path:
        """Absolute; it need not exist."""
        return Path(self.golden_dir).expanduser().absolute() if self.golden_dir is not None else self.root / "golden"

    @property
    def resolved_cache_dir(self) -> Path:
        if self.cache_dir is not None:
            return Path(self.cache_dir).expanduser().absolute()
        base = self.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return Path(base).expanduser() / "rag-platform"

    @property
    def cores(self) -> int:
        """Cores that this process may use: of those of the machine, what its container's quota leaves, at least 1."""
        try:
            cores = len(os.sched_getaffinity(0))
        except AttributeError:  # not on this platform
            cores = os.cpu_count() or 1
        return min(cores, quota_cores() or cores)

    def vendor(self, cls: type[T], prefix: str) -> T:
        """Read a vendor's own settings dataclass from ``<prefix><FIELD>`` variables."""
        return _read(cls, prefix, self.environ)

    # ── reading ──
    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Read the environment; ``overrides`` win.

        Raises:
            ConfigurationError: a value cannot be read or makes no sense; names the variable.
        """
        environ = dict(os.environ if environ is None else environ)
        settings = _read(cls, "RAG_", environ, skip={"environ"})
        settings = dataclasses.replace(settings, environ=environ, **overrides)
        settings._validate()
        return settings

    def _validate(self) -> None:
        def need(ok: bool, name: str, what: str) -> None:
            if not ok:
                raise ConfigurationError(f"RAG_{name.upper()}: {what} (is {getattr(self, name)!r})")

        need(self.partition_hex_digits in (1, 2, 3), "partition_hex_digits", "must be 1, 2 or 3")
        need(self.ledger_timeout_s >= 1, "ledger_timeout_s", "must be at least 1")
        need(self.buckets_per_run >= 0, "buckets_per_run", "must not be below 0")
        need(0 < self.source_max_deletion_share <= 1, "source_max_deletion_share", "must be above 0 and at most 1")
        need(0 < self.max_dead_letter_share <= 1, "max_dead_letter_share", "must be above 0 and at most 1")
        need(self.chunk_tokens >= 8, "chunk_tokens", "must be at least 8")
        need(
            0 <= self.chunk_overlap_tokens < self.chunk_tokens // 2 + 1,
            "chunk_overlap_tokens",
            "must be less than half of RAG_CHUNK_TOKENS",
        )
        need(self.fusion in ("linear", "rrf"), "fusion", "must be linear or rrf")
        need(0 <= self.fusion_vector_weight <= 1, "fusion_vector_weight", "must be between 0 and 1")
        need(self.profile in ("fast", "balanced", "thorough"), "profile", "must be fast, balanced or thorough")
        need(self.query_log in ("metadata", "full", "off"), "query_log", "must be metadata, full or off")
        need(self.query_log_days >= 0, "query_log_days", "must not be below 0")
        need(self.key_cache_s >= 10, "key_cache_s", "must be at least 10")
        need(0 < self.semantic_threshold <= 1.01, "semantic_threshold", "must be above 0 and at most 1.01")
        need(self.cache_entries >= 1, "cache_entries", "must be at least 1")
        need(self.ocr in ("auto", "off"), "ocr", "must be auto or off")
        need(self.parse_ocr_page_s >= 1, "parse_ocr_page_s", "must be at least 1")
        need(self.candidates >= 1, "candidates", "must be at least 1")
        need(self.gate in ("on", "off"), "gate", "must be on or off")
        need(self.candidate_retention_days >= 0, "candidate_retention_days", "must not be below 0")
        need(self.evaluation_retention_days >= 0, "evaluation_retention_days", "must not be below 0")
        need(len(self.evaluation_schedule.split()) == 5, "evaluation_schedule", "must be five cron fields")
        need(self.judge_timeout_s >= 1, "judge_timeout_s", "must be at least 1")
        need(self.judge_daily_usd >= 0, "judge_daily_usd", "must not be below 0")
        need(self.judge_daily_tokens >= 0, "judge_daily_tokens", "must not be below 0")
        need(0 <= self.eval_sample_rate <= 1, "eval_sample_rate", "must be between 0 and 1")
        need(self.parse_memory_mb >= 256, "parse_memory_mb", "must be at least 256")

    def describe(self) -> list[dict[str, str]]:
        """Return one row a setting: name, value (secrets masked), where it came from, and what it is."""
        rows = []
        for f in dataclasses.fields(self):
            if f.metadata.get("internal"):
                continue
            variable = f"RAG_{f.name.upper()}"
            value = getattr(self, f.name)
            if value != f.default:
                source = "environment" if variable in self.environ else "option"
            else:
                source = "environment" if variable in self.environ else "default"
            shown = "********" if f.metadata.get("secret") and value else str(value)
            rows.append({"variable": variable, "value": shown, "source": source, "doc": f.metadata["doc"]})
        return rows


def quota_cores(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """Return the CPU quota of this container (cgroup v2) in whole cores, rounded up; None without one."""
    try:
        quota, period = file.read_text().split()
        return max(1, -(-int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _read(cls: type[T], prefix: str, environ: Mapping[str, str], skip: set[str] | None = None) -> T:
    values: dict[str, Any] = {}
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        variable = f"{prefix}{f.name.upper()}"
        raw = environ.get(variable)
        if raw is None or raw == "" or f.name in (skip or ()):
            continue
        try:
            values[f.name] = _convert(raw, hints[f.name])
        except ValueError as e:
            shown = "the given value" if f.metadata.get("secret") else repr(raw)
            raise ConfigurationError(f"{variable}: cannot read {shown} as {hints[f.name]}") from e
    return cls(**values)


def _convert(raw: str, kind: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(a for a in typing.get_args(kind) if a is not type(None))
    if kind is bool:
        lowered = raw.strip().lower()
        if lowered in ("1", "true", "yes", "on"):
            return True
        if lowered in ("0", "false", "no", "off"):
            return False
        raise ValueError(raw)
    if kind is Path:
        return Path(raw)
    return kind(raw)
