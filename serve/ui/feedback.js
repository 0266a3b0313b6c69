// Thumbs up or down, then, if wanted, a comment. The thumb counts at once; with a comment it is sent again, and
// the server keeps one opinion of a reader on an answer: the last.

import * as api from "./api.js";
import { announce, el, icon } from "./dom.js";
import { apiKey } from "./options.js";

const MAX_COMMENT = 2000;

/** Controls to rate one answer. @param {string} requestId */
export function feedback(requestId) {
  const said = el("span.fine");
  const comment = el("input", { type: "text", maxlength: MAX_COMMENT, "aria-label": "Comment on this answer", placeholder: "What was good or wrong? (optional)" });
  const form = el("form.comment", { hidden: true }, comment, el("button", { type: "submit" }, "Send comment"));
  const thumbs = [thumb("up", "Good answer"), thumb("down", "Bad answer")];
  let rating = null;
  let busy = false;

  function thumb(value, label) {
    const rate = () => {
      if (value !== rating) submit(value);
    };
    return el("button.icon-button", { type: "button", "aria-label": label, "aria-pressed": "false", on: { click: rate } }, icon(value));
  }

  async function submit(value, text = "") {
    if (busy) return;
    busy = true;
    said.textContent = "";
    const body = { request_id: requestId, rating: value, ...(text ? { comment: text } : {}) };
    const sending = { key: apiKey(), idempotencyKey: api.idempotencyKey() };
    try {
      // A lost connection says nothing about whether it counted: the same key makes the second attempt harmless.
      await api.feedback(body, sending).catch((error) => (error.status === api.UNREACHABLE ? api.feedback(body, sending) : Promise.reject(error)));
      rating = value;
      thumbs.forEach((button, n) => button.setAttribute("aria-pressed", String(value === (n ? "down" : "up"))));
      form.hidden = Boolean(text);
      form.scrollIntoView({ block: "nearest" });
      said.textContent = text ? "Thank you, the comment was sent." : "Thank you.";
      announce(said.textContent);
    } catch {
      said.textContent = "That could not be sent. Please try again.";
      announce(said.textContent);
    } finally {
      busy = false;
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = comment.value.trim();
    if (text) submit(rating, text);
    else comment.focus();
  });
  return { buttons: el("span.thumbs", { role: "group", "aria-label": "Rate this answer" }, ...thumbs, said), form };
}
