// Building the page. Strings only ever become text nodes and attribute values: nothing that a server
// sent is parsed as HTML anywhere in this folder.

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * Make an element.
 * @param {string} tag such as "p" or "p.note.warning": classes behind dots.
 * @param {object} props attributes; `on` is a map of event listeners; false, null and undefined are left out.
 * @param {...(Node|string|number|null|false)} children strings become text nodes; null and "" nothing.
 */
export function el(tag, props = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const node = document.createElement(name);
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(props)) {
    if (key === "on") {
      for (const [type, listener] of Object.entries(value)) node.addEventListener(type, listener);
    } else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(key, value === true ? "" : String(value));
    }
  }
  node.append(...children.filter((c) => c !== null && c !== undefined && c !== false && c !== "").map((c) => (c instanceof Node ? c : String(c))));
  return node;
}

/** An icon of the sprite in index.html; it says nothing to a screen reader. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A link that opens elsewhere, or plain text where the address is not http(s): no `javascript:` or `data:` link. */
export function safeLink(address, text = address) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return document.createTextNode(text);
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return document.createTextNode(text);
  return el("a", { href: url.href, target: "_blank", rel: "noopener noreferrer" }, text);
}

/** Say something to a screen reader without showing it. */
export function announce(text) {
  const status = byId("status");
  status.textContent = "";
  // A live region reports changes, so the same sentence twice has to be a change twice.
  requestAnimationFrame(() => (status.textContent = text));
}

/** A button that copies what `text()` returns and says so; absent where the browser offers no clipboard. */
export function copyButton(label, iconName, text) {
  if (!navigator.clipboard) return null;
  const words = el("span", {}, label);
  const button = el("button.quiet", { type: "button" }, icon(iconName), words);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      words.textContent = "Copied";
      announce("Copied");
    } catch {
      words.textContent = "Not allowed by the browser";
    }
    setTimeout(() => (words.textContent = label), 2000);
  });
  return button;
}
