// The side panel: a citation's quote, marked where it stands in its document, and where the document came from.

import * as api from "./api.js";
import { byId, el, safeLink } from "./dom.js";
import { apiKey } from "./options.js";
import * as preview from "./preview.js";
import { trouble } from "./trouble.js";
import { moment } from "./words.js";

const NARROW = matchMedia("(max-width: 60rem)");

const panel = byId("panel");
const body = byId("panel-body");
const title = byId("panel-title");
const content = byId("panel-content");
const [previous, next] = [byId("panel-previous"), byId("panel-next")];

let citations = [];
let at = 0;
let opener = null;
let loading = null;

/**
 * Show one of an answer's citations. The focus moves into the panel and comes back when it is closed.
 * @param {object[]} all the citations of the answer. @param {number} index @param {HTMLElement} link was activated.
 */
export function open(all, index, link) {
  preview.hide();
  [citations, opener] = [all, link];
  if (!panel.open) {
    // Beside the answer where there is room; over it, holding the focus, where there is none.
    if (NARROW.matches) panel.showModal();
    else panel.show();
    document.body.classList.toggle("panel-open", !NARROW.matches);
  }
  show(index);
  title.focus();
}

/** Close the panel, if it is open. */
export function close() {
  if (panel.open) panel.close();
}

async function show(index) {
  loading?.abort();
  const turn = (loading = new AbortController());
  at = index;
  const cited = citations[at];
  byId("panel-position").textContent = `Source ${cited.number}, ${at + 1} of ${citations.length}`;
  previous.disabled = at === 0;
  next.disabled = at === citations.length - 1;
  title.textContent = cited.title || cited.uri;
  content.setAttribute("aria-busy", "true");
  content.replaceChildren(passage([["mark", cited.quote]]), el("p.fine", {}, "Opening the document…"));
  body.scrollTop = 0;
  try {
    const span = await api.citation(cited.chunk_id, { key: apiKey(), signal: turn.signal });
    if (!turn.signal.aborted) render(cited, span);
  } catch (error) {
    if (turn.signal.aborted) return;
    const problem = error instanceof api.Problem ? error : new api.Problem();
    const box = trouble(problem, { hasKey: Boolean(apiKey()), retry: () => show(at) });
    content.replaceChildren(passage([["mark", cited.quote]]), box, provenance(cited));
  } finally {
    if (!turn.signal.aborted) content.removeAttribute("aria-busy");
  }
}

function render(cited, span) {
  const pieces = locate(cited, span);
  const found = pieces.some(([kind]) => kind === "mark");
  title.textContent = span.title || cited.title || span.uri;
  content.replaceChildren(
    facts([
      ["Source", span.source],
      ["Document", safeLink(span.uri)],
      ["Page", span.page],
      ["Section", span.heading_path],
    ]),
    found ? "" : el("p.trouble", {}, "The document has changed since: the quote no longer stands in this passage. It was:", passage([["mark", cited.quote]])),
    passage(pieces),
    provenance({ ...cited, ...span }),
  );
  const mark = content.querySelector("mark");
  if (mark) body.scrollTop = mark.offsetTop - body.clientHeight / 3;
}

/**
 * Cut a passage into `[kind, text]` pieces, kind one of around, text, mark. Offsets of the API count characters
 * (code points) of the document; strings here count UTF-16 units, so the cut is made on arrays of code points.
 */
function locate(cited, span) {
  const [before, text, after] = [span.before, span.text, span.after].map((part) => Array.from(part ?? ""));
  const all = [...before, ...text, ...after];
  const origin = span.start - before.length;
  let [from, to] = [cited.start - origin, cited.end - origin];
  if (from < 0 || all.slice(from, to).join("") !== cited.quote) {
    const whole = all.join("");
    const unit = cited.quote ? whole.indexOf(cited.quote) : -1;
    from = unit < 0 ? -1 : Array.from(whole.slice(0, unit)).length;
    to = unit < 0 ? -1 : from + Array.from(cited.quote).length;
  }
  const edges = [0, before.length, before.length + text.length, all.length, from, to].filter((e) => e >= 0);
  const cuts = [...new Set(edges)].sort((a, b) => a - b);
  return cuts.slice(0, -1).map((start, n) => {
    const piece = all.slice(start, cuts[n + 1]).join("");
    if (start >= from && start < to) return ["mark", piece];
    return [start < before.length || start >= before.length + text.length ? "around" : "text", piece];
  });
}

function passage(pieces) {
  const nodes = pieces.map(([kind, text]) => (kind === "mark" ? el("mark", {}, text) : el(`span.${kind}`, {}, text)));
  return el("blockquote.passage", {}, ...nodes);
}

function facts(rows) {
  const given = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl.facts", {}, ...given.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

const code = (text) => (text ? el("code", {}, text) : null);

function provenance(known) {
  const run = known.run_id || "";
  return el("section.provenance", { "aria-label": "Where this comes from" },
    el("h3", {}, "Where this comes from"),
    facts([
      ["At its source", known.url ? safeLink(known.url, known.url) : null],
      ["Characters", known.start === undefined ? null : `${known.start} to ${known.end}`],
      ["Modified", known.modified_at ? moment(known.modified_at) : null],
      ["Type", known.mime_type],
      ["Version", code(known.version_id)],
      ["Snapshot", code(known.snapshot_id)],
      ["Ingest run", run && known.run_url ? safeLink(known.run_url, run) : code(run)],
      ["Chunk", code(known.chunk_id)],
    ]),
  );
}

previous.addEventListener("click", () => step(-1));
next.addEventListener("click", () => step(1));
byId("panel-close").addEventListener("click", close);

function step(by) {
  if (citations[at + by]) show(at + by);
  // A button that has just been switched off would drop the focus.
  if (document.activeElement === document.body || document.activeElement?.disabled) title.focus();
}

panel.addEventListener("keydown", (event) => {
  if (event.target.closest("a, input, textarea")) return;
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !panel.open || event.defaultPrevented) return;
  event.preventDefault();
  close();
});
panel.addEventListener("close", () => {
  loading?.abort();
  document.body.classList.remove("panel-open");
  if (opener?.isConnected) preview.quietly(() => opener.focus({ preventScroll: true }));
  opener = null;
});
panel.addEventListener("click", (event) => {
  if (event.target === panel) close(); // the backdrop of the modal form
});
