// Server-sent events read from a fetch body (EventSource cannot POST), as the HTML standard parses them.

/** Takes text in pieces of any size and hands out whole events. */
export class EventParser {
  #rest = "";
  #event = "";
  #data = [];
  #started = false;
  #skipLineFeed = false;

  /** @param {string} text the next piece. @returns {{event: string, data: string}[]} events that it completed. */
  push(text) {
    if (!this.#started && text) {
      this.#started = true;
      if (text.charCodeAt(0) === 0xfeff) text = text.slice(1);
    }
    if (this.#skipLineFeed && text) {
      // The piece before ended in CR, which ended a line; the LF of a CRLF ends no second one.
      this.#skipLineFeed = false;
      if (text[0] === "\n") text = text.slice(1);
    }
    const found = [];
    const buffer = this.#rest + text;
    const endOfLine = /\r\n|\r|\n/g;
    let from = 0;
    for (let m = endOfLine.exec(buffer); m; m = endOfLine.exec(buffer)) {
      this.#line(buffer.slice(from, m.index), found);
      from = endOfLine.lastIndex;
    }
    this.#skipLineFeed = buffer.endsWith("\r") || (this.#skipLineFeed && !text);
    this.#rest = buffer.slice(from);
    return found;
  }

  #line(line, found) {
    if (line === "") {
      if (this.#data.length) found.push({ event: this.#event || "message", data: this.#data.join("\n") });
      this.#event = "";
      this.#data = [];
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment: servers send them to keep a connection open
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value[0] === " ") value = value.slice(1);
    if (field === "event") this.#event = value;
    else if (field === "data") this.#data.push(value);
  }
}

/**
 * Yield the events of a response body. An event that the stream ends in the middle of is dropped.
 * @param {ReadableStream<Uint8Array>} body
 */
export async function* events(body) {
  const parser = new EventParser();
  const decoder = new TextDecoder(); // keeps the halves of a character that two pieces share
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {}); // already closed or aborted: nothing left to end
  }
}
