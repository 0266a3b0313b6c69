// The dot in the corner: whether the server says that it is ready, and what is missing if not.

import * as api from "./api.js";
import { byId, el } from "./dom.js";
import * as words from "./words.js";

const EVERY_MS = 30_000;
const PATIENCE_MS = 5_000;

const [box, text, body] = [byId("health"), byId("health-text"), byId("health-body")];

function show(state, sentence, nodes) {
  box.dataset.state = state;
  text.textContent = sentence;
  body.replaceChildren(...nodes);
}

async function check() {
  try {
    const { ok, report } = await api.ready(AbortSignal.timeout(PATIENCE_MS));
    const parts = Object.entries(report.dependencies ?? {});
    const missing = (report.missing ?? []).map(words.name);
    const rows = parts.map(([name, state]) =>
      el("li", { "data-good": state === "ok" }, words.name(name), el("span", {}, state === "ok" ? "works" : words.reason(state))));
    const list = rows.length ? [el("ul", {}, ...rows)] : [el("p", {}, ok ? "The server takes questions." : "The server does not say what is missing.")];
    if (report.status === "stopping") show("missing", "Stopping", list);
    else if (missing.length) show(ok ? "partial" : "missing", `Missing: ${missing.join(", ")}`, list);
    else show(ok ? "ready" : "missing", ok ? "Ready" : "Not ready", list);
  } catch {
    show("unreachable", "Unreachable", [el("p", {}, "The server does not answer.")]);
  }
}

/** Follow the server's health while the page is looked at. */
export function start() {
  check();
  setInterval(() => document.visibilityState === "visible" && check(), EVERY_MS);
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && check());
  addEventListener("online", check);
  document.addEventListener("click", (event) => {
    if (!box.contains(event.target)) box.open = false;
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !box.open) return;
    event.preventDefault();
    box.open = false;
    box.querySelector("summary").focus();
  });
}
