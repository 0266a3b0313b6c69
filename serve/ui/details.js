// What stands below an answer: badges, what did not work, sources, timings, ids and the raw JSON.

import { copyButton, el } from "./dom.js";
import * as panel from "./panel.js";
import { place } from "./preview.js";
import * as words from "./words.js";

/** Short facts about how the answer came about; each says in its title what it means. */
export function badges(answer) {
  const badge = (kind, [text, meaning], value = "") => el("li.badge", { "data-kind": kind, "data-value": value, title: meaning }, text);
  const known = [
    badge("mode", words.mode(answer.mode), answer.mode),
    answer.refused && badge("refused", ["No answer in the documents", "The documents do not answer this question."]),
    badge("generator", words.generator(answer.generator), answer.generator),
    badge("cache", words.cache(answer.cache), answer.cache),
    badge("cost", [words.cost(answer.cost_usd), "Price of the models that this answer used."]),
    answer.timings_ms?.total !== undefined && badge("time", [words.milliseconds(answer.timings_ms.total), "From the question to the answer, in the server."]),
    answer.release_id && badge("release", [`Release ${answer.release_id}`, "The version of the index that was searched."]),
  ];
  return el("ul.badges", { "aria-label": "How this answer came about" }, ...known);
}

/** What the reader should know about a lesser answer; null when nothing. */
export function notices(answer) {
  const lines = (answer.degraded ?? []).map(words.degradation);
  const [, meaning] = words.mode(answer.mode);
  if (answer.mode !== "full" && meaning) lines.unshift(meaning);
  if (!lines.length) return null;
  return el("ul.notices", { "aria-label": "What did not work" }, ...[...new Set(lines)].map((line) => el("li", {}, line)));
}

/** The cited passages as a list; each opens the side panel. @param {string} prefix of the entries' ids. */
export function sources(answer, prefix) {
  if (!answer.citations.length) return null;
  const entry = (citation, index) => {
    const open = el("button.source", { type: "button", on: { click: () => panel.open(answer.citations, index, open) } },
      el("span.number", { "aria-hidden": "true" }, citation.number),
      el("span.source-text", {},
        el("span.source-title", {}, el("span.visually-hidden", {}, `Source ${citation.number}: `), citation.title || citation.uri),
        el("span.source-place", {}, [citation.source, place(citation)].filter(Boolean).join(" · ")),
        // An extractive answer is these quotes; once is enough.
        answer.generator !== "extractive" && el("span.source-quote", {}, citation.quote),
      ),
    );
    return el("li", { id: `${prefix}-${citation.number}` }, open);
  };
  return el("section.sources", { "aria-label": "Sources" }, el("h3", {}, "Sources"), el("ol", {}, ...answer.citations.map(entry)));
}

/** Time per stage as bars; lengths are shares of the slowest stage. */
function timings(answer) {
  const { total, ...stages } = answer.timings_ms ?? {};
  const rows = Object.entries(stages).filter(([, ms]) => Number.isFinite(ms));
  if (!rows.length && !Number.isFinite(total)) return null; // one from the cache has a total alone
  const most = Math.max(...rows.map(([, ms]) => ms), 0.001);
  const row = ([name, ms]) => {
    const bar = el("span.bar-fill", { "aria-hidden": "true" });
    bar.style.width = `${Math.max((100 * ms) / most, 0.5)}%`;
    return el("tr", {}, el("th", { scope: "row" }, words.name(name)), el("td.bar-cell", {}, bar), el("td.ms", {}, words.milliseconds(ms)));
  };
  const sum = Number.isFinite(total) && el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "total"), el("td"), el("td.ms", {}, words.milliseconds(total))));
  return el("table.timings", {}, el("caption", {}, "Time per stage"), el("tbody", {}, ...rows.map(row)), sum);
}

function facts(answer) {
  const { usage = {} } = answer;
  const rows = [
    ["Request", answer.request_id],
    ["Release", answer.release_id],
    ["Profile", answer.profile],
    ["Generator", answer.generator],
    ["Tokens", `${usage.prompt_tokens ?? 0} in, ${usage.completion_tokens ?? 0} out, ${usage.embedding_tokens ?? 0} embedded`],
  ].filter(([, value]) => value);
  return el("dl.facts", {}, ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, el("code", {}, value))]));
}

/** Everything else, for people who look under the hood. */
export function details(answer, id) {
  const raw = JSON.stringify(answer, null, 2);
  return el("div.details", { id, hidden: true },
    timings(answer),
    facts(answer),
    el("details.raw", {}, el("summary", {}, "Raw JSON"), copyButton("Copy JSON", "copy", () => raw), el("pre", { tabindex: "0", "aria-label": "The answer as JSON" }, raw)),
  );
}
