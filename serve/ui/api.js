// The HTTP API as this page uses it. Addresses are relative, so the page works below any path.

import { events } from "./sse.js";

/** Statuses that no server sends: no response at all; a response that ended before the answer. */
export const UNREACHABLE = 0;
export const CUT = -1;

/** Why a request did not work: the fields of an RFC 9457 problem, plus how long to wait. */
export class Problem extends Error {
  constructor({ status = UNREACHABLE, title = "", detail = "", requestId = "", retryAfterS = null } = {}) {
    super(title || detail || `status ${status}`);
    Object.assign(this, { status, title, detail, requestId, retryAfterS });
  }

  /** @param {unknown} body problem JSON; wrong types are ignored. @param {Headers} [headers] */
  static from(body, status, headers) {
    const text = (value) => (typeof value === "string" ? value : "");
    const given = body && typeof body === "object" ? body : {};
    const detail = text(given.detail);
    // Which fields of the request were wrong, where the server says so and has not said it already.
    const errors = Array.isArray(given.errors) ? given.errors.map((e) => `${text(e?.field)}: ${text(e?.detail)}`) : [];
    const seconds = headers?.get("Retry-After") ?? given.retry_after_s;
    return new Problem({
      status: Number(given.status) || status,
      title: text(given.title),
      detail: [detail, ...errors.filter((e) => !detail.includes(e))].filter(Boolean).join(" "),
      requestId: text(given.request_id) || headers?.get("X-Request-ID") || "",
      retryAfterS: retryAfter(seconds),
    });
  }
}

const MAX_WAIT_S = 86_400;

/** Seconds to wait, of a Retry-After value (seconds or a date); null when it says nothing usable. */
function retryAfter(value) {
  if (value === null || value === undefined || value === "") return null;
  const seconds = Number.isFinite(Number(value)) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(Math.ceil(seconds), 0), MAX_WAIT_S) : null;
}

/** 128 random bits as hex. `crypto.randomUUID` exists on https and localhost only. */
export function idempotencyKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

async function send(path, { key, method = "GET", body, accept = "application/json", headers = {}, signal } = {}) {
  const init = { method, signal, cache: "no-store", headers: { Accept: accept, ...headers } };
  if (key) init.headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) {
    init.headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem();
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => null);
  throw Problem.from(problem, response.status, response.headers);
}

/**
 * Ask, and yield `{event, data}` until the server closes the stream. The answer comes last, but the stream
 * is read to its end all the same: hanging up on the server could cut short what it does after answering.
 * @param {object} body of POST /v1/query, without `stream`.
 * @throws {Problem} refused, failed, or the stream ended before the answer. {DOMException} AbortError: `signal`.
 */
export async function* ask(body, { key, signal }) {
  const accept = "text/event-stream, application/json;q=0.5";
  const response = await send("v1/query", { method: "POST", body: { ...body, stream: true }, key, signal, accept });
  if (!(response.headers.get("Content-Type") ?? "").startsWith("text/event-stream")) {
    yield { event: "answer", data: { answer: await response.json() } };
    return;
  }
  const requestId = response.headers.get("X-Request-ID") ?? "";
  let complete = false;
  try {
    for await (const { event, data } of events(response.body)) {
      const parsed = parse(data);
      if (event === "error") throw Problem.from(parsed, 500, response.headers);
      if (parsed === null) continue; // such as [DONE]
      complete ||= event === "answer";
      yield { event, data: parsed };
    }
  } catch (error) {
    if (!complete && (error instanceof Problem || error.name === "AbortError")) throw error;
  }
  if (!complete) throw new Problem({ status: CUT, requestId });
}

function parse(data) {
  try {
    const value = JSON.parse(data);
    return value && typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

/** The passage that a citation points into, with the text around it. */
export async function citation(chunkId, { key, signal }) {
  return (await send(`v1/citations/${encodeURIComponent(chunkId)}`, { key, signal })).json();
}

/** Rate an answer. The same `idempotencyKey` may be sent twice and counts once. */
export async function feedback(body, { key, idempotencyKey }) {
  await send("v1/feedback", { method: "POST", body, key, headers: { "Idempotency-Key": idempotencyKey } });
}

/** The readiness report, whether ready (200) or not (503). */
export async function ready(signal) {
  const response = await fetch("health/ready", { cache: "no-store", signal });
  return { ok: response.ok, report: await response.json().catch(() => ({})) };
}
