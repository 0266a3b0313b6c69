// The card with a citation's quote, shown while its number is pointed at or has the keyboard's focus.

import { byId, el } from "./dom.js";

const SHOW_AFTER_MS = 120;
const HIDE_AFTER_MS = 180; // long enough to move the pointer from the number onto the card
const MARGIN = 12;

const card = byId("preview");
let timer = 0;
let shownFor = null;
let muted = false;

/** Where a quote stands, in one line: page and section. */
export function place({ page, heading_path: headings }) {
  return [page ? `page ${page}` : "", headings ?? ""].filter(Boolean).join(" · ");
}

function show(link, citation) {
  hide();
  card.replaceChildren(
    el("p.preview-title", {}, citation.title || citation.uri),
    el("p.preview-place", {}, [citation.source, place(citation)].filter(Boolean).join(" · ")),
    el("blockquote", {}, citation.quote),
  );
  card.hidden = false;
  const at = link.getClientRects()[0] ?? link.getBoundingClientRect();
  const below = at.bottom + 8;
  const fits = below + card.offsetHeight + MARGIN <= innerHeight || at.top < innerHeight / 2;
  const left = Math.min(at.left - 16, innerWidth - card.offsetWidth - MARGIN);
  card.style.left = `${Math.max(MARGIN, left)}px`;
  card.style.top = `${fits ? below : Math.max(MARGIN, at.top - 8 - card.offsetHeight)}px`;
  link.setAttribute("aria-describedby", card.id);
  shownFor = link;
}

/** Take the card away, at once. */
export function hide() {
  clearTimeout(timer);
  shownFor?.removeAttribute("aria-describedby");
  shownFor = null;
  card.hidden = true;
}

/** Do something, such as giving the focus back to a link, without a card popping up for it. */
export function quietly(action) {
  muted = true;
  action();
  muted = false;
}

const soon = (action, ms) => {
  clearTimeout(timer);
  timer = setTimeout(action, ms);
};

/** Let a link show the card of its citation. */
export function previews(link, citation) {
  link.addEventListener("pointerenter", (event) => {
    if (event.pointerType !== "touch") soon(() => show(link, citation), SHOW_AFTER_MS);
  });
  link.addEventListener("pointerleave", () => soon(hide, HIDE_AFTER_MS));
  link.addEventListener("focus", () => {
    if (!muted && link.matches(":focus-visible")) show(link, citation);
  });
  link.addEventListener("blur", hide);
}

card.addEventListener("pointerenter", () => clearTimeout(timer));
card.addEventListener("pointerleave", () => soon(hide, HIDE_AFTER_MS));
addEventListener("scroll", hide, { passive: true });
addEventListener("resize", hide);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !card.hidden) {
    hide();
    event.stopImmediatePropagation(); // one Escape closes one thing
  }
}, { capture: true });
