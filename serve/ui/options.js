// How to ask: profile, passages, filter and API key. Remembered in this tab's sessionStorage only, the key too.

import { byId } from "./dom.js";

const KEY = "rag.key";
const CHOICES = "rag.choices";
const MAX_PASSAGES = 50;

const store = {
  // A browser may forbid storage altogether; the page then forgets at reload, and nothing else.
  get(name) {
    try {
      return sessionStorage.getItem(name);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      if (value) sessionStorage.setItem(name, value);
      else sessionStorage.removeItem(name);
    } catch {
      // see above
    }
  },
};

const form = byId("composer");
const [passages, filter, keyField] = [byId("passages"), byId("filter"), byId("key")];
const [box, toggle, count] = [byId("options"), byId("options-toggle"), byId("options-set")];

/** The API key, or "". */
export const apiKey = () => keyField.value.trim();

/** What goes into the body of a question: only what was chosen. */
export function choices() {
  const k = Number.parseInt(passages.value, 10);
  const where = filter.value.trim();
  return {
    profile: new FormData(form).get("profile") ?? "balanced",
    ...(k >= 1 && k <= MAX_PASSAGES ? { k } : {}),
    ...(where ? { filter: where } : {}),
  };
}

/** Set choices, such as those of a deep link. */
export function choose({ profile, k, filter: where }) {
  for (const radio of form.querySelectorAll("[name=profile]")) if (radio.value === profile) radio.checked = true;
  if (k) passages.value = String(k);
  if (where) filter.value = where;
  remember();
}

/** Open the options, with the cursor in the key field. */
export function askForKey() {
  open(true);
  keyField.focus();
  keyField.select();
}

function open(yes) {
  box.hidden = !yes;
  toggle.setAttribute("aria-expanded", String(yes));
}

function remember() {
  store.set(KEY, apiKey());
  store.set(CHOICES, JSON.stringify(choices()));
  const set = [passages, filter, keyField].filter((field) => field.value.trim()).length;
  count.textContent = set ? `${set} set` : "";
  count.hidden = !set;
}

/** Fill in what this tab remembers and follow the fields from now on. `onKey` runs when the key has changed. */
export function start(onKey) {
  keyField.value = store.get(KEY) ?? "";
  let remembered = {};
  try {
    remembered = JSON.parse(store.get(CHOICES) ?? "{}");
  } catch {
    // written by another version of this page
  }
  choose(remembered ?? {});
  toggle.addEventListener("click", () => open(box.hidden));
  form.addEventListener("input", (event) => {
    if (event.target.id !== "question") remember();
  });
  keyField.addEventListener("change", onKey);
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    open(false);
    toggle.focus();
  });
}
