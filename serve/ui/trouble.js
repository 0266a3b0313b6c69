// A failed request as a plain sentence, with what to do about it.

import { CUT, UNREACHABLE } from "./api.js";
import { announce, el } from "./dom.js";

/** @returns {[string, string]} what happened, and what else the server said about it. */
function sentences({ status, detail, title }, hasKey) {
  const field = /^\w+:/.test(detail); // names a field of the request, which is written as it is
  const said = detail && `${field ? detail[0] : detail[0].toUpperCase()}${detail.slice(1)}${/[.!?]$/.test(detail) ? "" : "."}`;
  switch (status) {
    case UNREACHABLE:
      return ["The server cannot be reached. Is it running, and are you online?", ""];
    case CUT:
      return [title || "The connection broke before the answer was complete.", ""];
    case 401:
      return hasKey
        ? ["The API key was not accepted: it may be mistyped, expired or revoked.", ""]
        : ["This server wants an API key. Enter yours under Options and try again.", ""];
    case 403:
      return ["Your API key does not allow this.", said];
    case 404:
      return ["That is no longer there, or your API key does not allow it.", ""];
    case 413:
      return ["That is longer than the server takes.", said];
    case 429:
      return ["Too many questions, or today's budget is spent.", said];
    case 503:
      return ["The server cannot answer right now.", said];
    case 504:
      return ["No answer was found in time. The fast profile takes less.", said];
  }
  if (status >= 500) return ["Something went wrong in the server.", said];
  return [title ? `${title}.` : `The server refused this (status ${status}).`, said];
}

/**
 * A box that says what happened. With `retry`, a button tries again, once the server's Retry-After is over.
 * @returns {HTMLElement}
 */
export function trouble(problem, { hasKey = false, retry } = {}) {
  const [words, said] = sentences(problem, hasKey);
  const box = el("div.trouble", {}, el("p", {}, words), said && el("p.fine", {}, said));
  if (problem.requestId) box.append(el("p.fine", {}, "Request ", el("code", {}, problem.requestId)));
  if (retry) box.append(retryButton(problem.retryAfterS ?? 0, box, retry));
  announce(`${words} ${said}`);
  return box;
}

function retryButton(seconds, box, retry) {
  const button = el("button", { type: "button", on: { click: retry } }, "Try again");
  if (!seconds) return button;
  const until = Date.now() + seconds * 1000;
  button.disabled = true;
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    button.textContent = left > 0 ? `Try again in ${span(left)}` : "Try again";
    if (left > 0) return;
    clearInterval(timer);
    button.disabled = false;
    if (box.isConnected) announce("You can try again now.");
  };
  const timer = setInterval(tick, 250);
  tick();
  return button;
}

const span = (seconds) => (seconds < 120 ? `${seconds} s` : seconds < 7200 ? `${Math.ceil(seconds / 60)} min` : `${Math.ceil(seconds / 3600)} h`);
