// An answer's text as paragraphs, lists, code and bold words, with its [n] as links. Builds nodes, parses no HTML.
// Links, images and raw HTML of Markdown are left as the text they are: an answer may not point elsewhere.

import { el } from "./dom.js";

const FENCE = /^\s*```/;
const BULLET = /^\s{0,6}[-*•]\s+(.*)$/;
const NUMBERED = /^\s{0,6}(\d{1,3})[.)]\s+(.*)$/;
const HEADING = /^#{1,6}\s+(.*)$/;
const INLINE = /(`[^`\n]+`)|\*\*([^*\n]+)\*\*|\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]/g;
const CITES = /()()\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]/g;

/**
 * @param {string} text
 * @param {(number: number) => Node|null} cite makes the link of a citation; null leaves its text alone.
 * @param {{quoted?: boolean}} how quoted: the text is the documents' own, so its punctuation is not Markdown.
 */
export function prose(text, cite, { quoted = false } = {}) {
  const out = document.createDocumentFragment();
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const pattern = quoted ? CITES : INLINE;
  let paragraph = [];
  const flush = () => {
    if (paragraph.length) out.append(el("p", {}, ...between(paragraph.map((line) => inline(line, pattern, cite)))));
    paragraph = [];
  };
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at];
    if (line.trim() === "") {
      flush();
    } else if (!quoted && FENCE.test(line)) {
      flush();
      const code = [];
      while (++at < lines.length && !FENCE.test(lines[at])) code.push(lines[at]);
      out.append(el("pre", { tabindex: "0" }, el("code", {}, code.join("\n"))));
    } else if (!quoted && HEADING.test(line)) {
      flush();
      out.append(el("p.subhead", {}, ...inline(HEADING.exec(line)[1], pattern, cite)));
    } else if (!quoted && (BULLET.test(line) || NUMBERED.test(line))) {
      flush();
      at = list(lines, at, out, pattern, cite);
    } else {
      paragraph.push(line);
    }
  }
  flush();
  return out;
}

/** Append the list that starts at line `at`; return its last line. */
function list(lines, at, out, pattern, cite) {
  const bulleted = BULLET.test(lines[at]);
  const item = bulleted ? BULLET : NUMBERED;
  const node = bulleted ? el("ul") : el("ol", { start: NUMBERED.exec(lines[at])[1] });
  for (; at < lines.length; at++) {
    const found = item.exec(lines[at]);
    if (found) node.append(el("li", {}, ...inline(found.at(-1), pattern, cite)));
    else if (lines[at].trim() === "" && at + 1 < lines.length && item.test(lines[at + 1])) continue;
    else if (/^\s{2,}\S/.test(lines[at]) && node.lastChild) node.lastChild.append(el("br"), ...inline(lines[at].trim(), pattern, cite));
    else break;
  }
  out.append(node);
  return at - 1;
}

function inline(text, pattern, cite) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(pattern)) {
    const [whole, code, bold, numbers] = found;
    if (found.index > from) nodes.push(text.slice(from, found.index));
    if (code) nodes.push(el("code", {}, code.slice(1, -1)));
    else if (bold) nodes.push(el("strong", {}, ...inline(bold, CITES, cite)));
    else nodes.push(...(cited(numbers, cite) ?? [whole]));
    from = found.index + whole.length;
  }
  if (from < text.length) nodes.push(text.slice(from));
  return nodes;
}

/** The links of "1" or "1, 3"; null unless every number is a citation. */
function cited(numbers, cite) {
  const links = numbers.split(",").map((n) => cite(Number(n)));
  return links.every(Boolean) ? links : null;
}

function between(lines) {
  return lines.flatMap((nodes, at) => (at ? [el("br"), ...nodes] : nodes));
}
