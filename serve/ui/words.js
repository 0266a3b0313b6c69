// What the API's fixed words mean, in plain sentences. A word that is not listed is shown as it came.

const own = (table, word) => (Object.hasOwn(table, word) ? table[word] : null);
const spaced = (word) => String(word).replaceAll("_", " ");

const MODES = {
  full: ["Full answer", "Everything that the profile asks for was done."],
  keyword_only: ["Keyword search only", "Found by the words of the question alone, not by its meaning."],
  context_only: ["Extracts only", "No answer could be generated; these are the best matching extracts."],
  cached: ["From an earlier answer", "Nothing could be searched by meaning; this answers the nearest earlier question."],
};

/** @returns {[string, string]} a short name of the mode and what it means. */
export const mode = (word) => own(MODES, word) ?? [spaced(word), ""];

const CACHES = {
  miss: ["Not from the cache", "Worked out for this question."],
  exact: ["From the cache", "The same question was answered before, from the same documents."],
  semantic: ["From the cache, similar question", "A question with the same meaning was answered before, from the same documents."],
};

/** @returns {[string, string]} */
export const cache = (word) => own(CACHES, word) ?? [`Cache: ${spaced(word)}`, ""];

/** @returns {[string, string]} who wrote the answer. */
export function generator(name) {
  return name === "extractive"
    ? ["Quoted, not written by a model", "The sentences are taken word for word from the documents."]
    : [`Written by ${name}`, "A language model wrote this from the quoted passages."];
}

const PARTS = {
  cache: ["The cache", "so the answer was worked out anew"],
  embed: ["The search by meaning", ""],
  extract: ["The choice of sentences", ""],
  llm: ["The language model", ""],
  multi_query: ["The search with further wordings", "so only the question's own wording was searched"],
  reranker: ["The reranker", "so the passages keep the order of the search"],
  rewrite: ["The rewriting of the question", "so the conversation before it was taken as it stands"],
  vector_store: ["The search index", ""],
};

const REASONS = {
  DependencyTimeout: "took too long",
  DependencyError: "is not working",
  RateLimited: "is at its rate limit",
  QuotaExhausted: "is out of quota",
  EmbeddingRefused: "did not accept the question",
  ConfigurationError: "is not set up",
  Unanswerable: "is not there yet",
  embedder_mismatch: "has another model than the index",
  truncated: "reached its length limit, so the answer ends early",
  ungrounded: "wrote something that the documents do not support",
  by_words: "went by words, not by meaning",
};

/** Why a part of the platform did not work, as the end of a sentence. */
export const reason = (word) => own(REASONS, word) ?? `did not do its part (${spaced(word)})`;

/** One sentence about a degradation `{stage, reason}`. */
export function degradation({ stage, reason: why }) {
  const [part, consequence] = own(PARTS, stage) ?? [spaced(stage), ""];
  return `${part} ${reason(why)}${consequence && `, ${consequence}`}.`;
}

const NEXT = {
  rewrite: "Searching the documents",
  embed: "Searching the documents",
  search: "Ranking the passages",
  rerank: "Reading the passages",
  compress: "Reading the passages",
};

/** What the server does once a stage has ended, for somebody who waits; null: nothing new. */
export const after = (stage) => own(NEXT, stage);

/** The name of a stage or a dependency. */
export const name = spaced;

/** Milliseconds in as many digits as tell something. */
export function milliseconds(ms) {
  if (!Number.isFinite(ms)) return "?";
  if (ms >= 10_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return `${ms >= 10 ? Math.round(ms) : Number(ms.toFixed(1))} ms`;
}

/** What an answer cost. */
export function cost(usd) {
  if (typeof usd !== "number") return "Cost unknown";
  if (usd === 0) return "No cost";
  return usd < 0.0001 ? "Under $0.0001" : `$${usd < 0.01 ? Number(usd.toPrecision(2)) : usd.toFixed(2)}`;
}

/** A time that the API gave in seconds since 1970 or as ISO text, as the reader's locale writes it. */
export function moment(value) {
  const date = new Date(typeof value === "number" ? value * 1000 : value);
  return Number.isNaN(date.getTime()) ? String(value) : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}
