// One question and its answer on the page, from the first stage to the sources.

import { announce, copyButton, el, icon } from "./dom.js";
import { badges, details, notices, sources } from "./details.js";
import { feedback } from "./feedback.js";
import * as panel from "./panel.js";
import { previews } from "./preview.js";
import { prose } from "./prose.js";
import { trouble } from "./trouble.js";
import * as words from "./words.js";

let count = 0;

export class Turn {
  #text = "";
  #frame = 0;
  #doing = "Searching the documents";
  #reading = false;
  #started = performance.now();
  #clock;

  /** @param {string} question @param {() => string} link makes the address that asks the same again. */
  constructor(question, link) {
    this.id = `turn-${++count}`;
    this.question = question;
    this.link = link;
    this.body = el("div.answer");
    this.progress = el("p.progress");
    this.below = el("div.below");
    this.node = el("article.turn", { "aria-labelledby": `${this.id}-question`, "data-state": "running" },
      el("h2.question", { id: `${this.id}-question` }, question), this.progress, this.body, this.below);
    this.#clock = setInterval(() => this.#tick(), 1000);
    this.#tick();
  }

  #tick() {
    const seconds = Math.floor((performance.now() - this.#started) / 1000);
    this.progress.replaceChildren(el("span.pulse", { "aria-hidden": "true" }), seconds ? `${this.#doing}… ${seconds} s` : `${this.#doing}…`);
  }

  /** A stage of the server has ended. */
  stage({ name }) {
    const next = words.after(name);
    if (next && !this.#text && !this.#reading) this.#doing = next;
    this.#tick();
  }

  /** The passages that the answer will rest on are known. */
  passages({ titles }) {
    const names = [...new Set(Array.isArray(titles) ? titles.map(String) : [])];
    this.#reading = names.length > 0;
    if (this.#reading) this.#doing = `Reading ${names.slice(0, 3).join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""}`;
    this.#tick();
  }

  /** A piece of text. Its numbers become links when the answer is complete and they have been verified. */
  text({ text }) {
    if (typeof text !== "string") return;
    this.#text += text;
    this.#doing = "Answering";
    // Many pieces may come between two frames; one drawing is enough for all of them.
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.body.replaceChildren(prose(this.#text, (n) => el("span.cite.pending", {}, n)));
    });
  }

  #end(state) {
    clearInterval(this.#clock);
    cancelAnimationFrame(this.#frame);
    this.progress.remove();
    this.node.dataset.state = state;
  }

  /** The answer; it replaces every text that came before. */
  finish(answer) {
    this.#end("done");
    const cite = (number) => {
      const index = answer.citations.findIndex((c) => c.number === number);
      return index < 0 ? null : this.#link(answer.citations, index);
    };
    this.body.replaceChildren(prose(answer.answer, cite, { quoted: answer.generator === "extractive" }));
    const more = details(answer, `${this.id}-details`);
    const { buttons, form } = feedback(answer.request_id);
    const actions = el("div.actions", {}, buttons, copyButton("Copy", "copy", () => answer.answer), copyButton("Copy link", "link", this.link), disclosure(more));
    this.below.replaceChildren(...[notices(answer), sources(answer, this.id), badges(answer), actions, form, more].filter(Boolean));
    const found = answer.citations.length;
    announce(`${answer.answer} ${found === 1 ? "One source." : `${found || "No"} sources.`}`);
  }

  #link(citations, index) {
    const citation = citations[index];
    const link = el("a.cite", { href: `#${this.id}-${citation.number}`, "aria-label": `Source ${citation.number}: ${citation.title || citation.uri}` }, citation.number);
    link.addEventListener("click", (event) => {
      event.preventDefault();
      panel.open(citations, index, link);
    });
    previews(link, citation);
    return link;
  }

  /** It did not work; text that had come stays and is called incomplete. */
  fail(problem, hasKey, retry) {
    this.#interrupt("failed");
    const box = trouble(problem, { hasKey, retry });
    this.below.replaceChildren(box);
  }

  /** The reader stopped it. */
  stop(retry) {
    this.#interrupt("stopped");
    this.below.replaceChildren(el("div.stopped", {}, el("p", {}, this.#text ? "Stopped. The text is incomplete and its sources were not checked." : "Stopped."),
      el("button", { type: "button", on: { click: retry } }, "Ask again")));
    announce("Stopped");
  }

  #interrupt(state) {
    this.#end(state);
    if (this.#text) this.body.replaceChildren(prose(this.#text, (n) => el("span.cite.pending", {}, n)));
  }
}

function disclosure(target) {
  const button = el("button.quiet", { type: "button", "aria-expanded": "false", "aria-controls": target.id }, icon("chart"), el("span", {}, "Details"));
  button.addEventListener("click", () => {
    target.hidden = !target.hidden;
    button.setAttribute("aria-expanded", String(!target.hidden));
    if (!target.hidden) target.scrollIntoView({ block: "nearest" });
  });
  return button;
}
