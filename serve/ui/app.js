// The conversation: takes questions, runs one at a time, remembers what was answered.

import * as api from "./api.js";
import { announce, byId } from "./dom.js";
import * as health from "./health.js";
import * as options from "./options.js";
import * as panel from "./panel.js";
import { Turn } from "./turn.js";

const MAX_TURNS = 20; // of the API; a question and its answer are two
const MAX_TURN_CHARS = 16_000;

const form = byId("composer");
const field = byId("question");
const thread = byId("thread");
const [sendButton, stopButton, newButton] = [byId("send"), byId("stop"), byId("new-conversation")];

let history = [];
let running = null;
let lastQuestion = "";
let unanswered = null; // runs again what waits for an API key

/** The address of this page that asks a question again. Behind the #, so it reaches no server's log. */
function deepLink(question, chosen) {
  const wanted = new URLSearchParams({ q: question, ...chosen });
  return `${location.origin}${location.pathname}#${wanted}`;
}

async function ask(question, replaced = null) {
  running?.abort();
  const mine = (running = new AbortController());
  const chosen = options.choices();
  const key = options.apiKey();
  const body = { question, history: history.slice(-MAX_TURNS), ...chosen };
  const turn = new Turn(question, () => deepLink(question, chosen));
  const again = () => ask(question, turn);
  unanswered = null;
  if (replaced?.node.isConnected) replaced.node.replaceWith(turn.node);
  else thread.append(turn.node);
  thread.dataset.used = "";
  lastQuestion = question;
  showState();
  announce("Searching the documents");
  turn.node.scrollIntoView({ block: "start" });
  try {
    for await (const { event, data } of api.ask(body, { key, signal: mine.signal })) {
      if (event === "stage") turn.stage(data);
      else if (event === "passages") turn.passages(data);
      else if (event === "text") turn.text(data);
      else if (event === "answer") {
        turn.finish(data.answer);
        remember(question, data.answer.answer);
        finished(mine);
      }
    }
  } catch (error) {
    if (mine.signal.aborted) {
      turn.stop(again);
    } else {
      const problem = error instanceof api.Problem ? error : new api.Problem({ status: api.CUT, title: "This page could not show the answer." });
      turn.fail(problem, Boolean(key), again);
      if (!(error instanceof api.Problem)) console.error(error);
      if (problem.status === 401) {
        unanswered = again;
        options.askForKey();
        turn.node.scrollIntoView({ block: "start" }); // the options opened over it
      }
    }
  } finally {
    finished(mine);
  }
}

function finished(controller) {
  if (running !== controller) return;
  running = null;
  showState();
}

function remember(question, answer) {
  const cut = (text) => Array.from(text).slice(0, MAX_TURN_CHARS).join("");
  history.push({ role: "user", text: question }, { role: "assistant", text: cut(answer) });
}

function showState() {
  const focused = document.activeElement;
  sendButton.hidden = Boolean(running);
  stopButton.hidden = !running;
  newButton.hidden = !thread.childElementCount;
  byId("welcome").hidden = Boolean(thread.childElementCount);
  // The focus must not vanish with the button that had it.
  if (focused === sendButton || focused === stopButton || focused === newButton) {
    if (focused.hidden) (focused === sendButton ? stopButton : field).focus();
  }
}

function grow() {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

function submit() {
  const question = field.value.trim();
  if (!question) {
    if (unanswered) unanswered();
    else field.focus();
    return;
  }
  if (running) return; // the text stays for when the answer is there
  field.value = "";
  grow();
  ask(question);
}

function startAgain() {
  running?.abort();
  panel.close();
  history = [];
  unanswered = null;
  thread.replaceChildren();
  showState();
  field.focus();
  announce("New conversation");
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
field.addEventListener("input", grow);
field.addEventListener("keydown", (event) => {
  if (event.isComposing) return; // Enter then accepts the characters of an input method
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    submit();
  } else if (event.key === "ArrowUp" && !field.value && lastQuestion) {
    event.preventDefault();
    field.value = lastQuestion;
    grow();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running && !event.defaultPrevented) running.abort();
});
stopButton.addEventListener("click", () => running?.abort());
newButton.addEventListener("click", startAgain);

function openLink() {
  const asked = new URLSearchParams(location.hash.startsWith("#q=") ? location.hash.slice(1) : location.search);
  const question = (asked.get("q") ?? "").trim().slice(0, field.maxLength);
  options.choose({ profile: asked.get("profile"), k: asked.get("k"), filter: asked.get("filter") });
  if (question) ask(question);
}

options.start(() => {
  if (options.apiKey() && unanswered) unanswered();
});
health.start();
openLink();
if (matchMedia("(hover: hover)").matches) field.focus(); // on a phone it would open the keyboard over the page
