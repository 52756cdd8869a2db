/** Server-sent events by fetch, with the access token: EventSource can send no header. */
import { open, Problem, problemOf } from "./http.js";
import { accessToken, renew } from "./session.js";

/** @typedef {{id: string, event: string, data: any}} StreamEvent */
/** @typedef {"connecting" | "live" | "waiting" | "ended"} StreamState */
/**
 * @typedef {object} Following
 * @property {(event: StreamEvent) => void} onEvent
 * @property {(state: StreamState, problem?: Problem) => void} [onState]
 * @property {string} [after]  the id of the last event that is known already
 */

/** The gateway sends a comment every 15 s. After a silence of this long, the connection is lost. */
const SILENCE_MS = 40_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
/** A hidden page closes its streams after this time: browsers open few connections to one host. */
const HIDDEN_MS = 20_000;

/**
 * Follow a stream until the returned function is called. It connects again by itself and continues after the last event.
 * @param {string} path
 * @param {Following} following
 * @returns {() => void}
 */
export function follow(path, { onEvent, onState = () => undefined, after = "" }) {
  const ending = new AbortController();
  let lastId = after;
  let pause = FIRST_PAUSE_MS;

  const take = (/** @type {StreamEvent} */ event) => {
    if (event.id) lastId = event.id;
    pause = FIRST_PAUSE_MS;
    if (event.event !== "end" && event.data !== undefined) onEvent(event);
  };

  const run = async () => {
    while (!ending.signal.aborted) {
      await untilVisible(ending.signal);
      onState("connecting");
      /** @type {Problem | undefined} */
      let problem;
      try {
        await readOnce(path, lastId, ending.signal, take, () => onState("live"));
      } catch (error) {
        if (ending.signal.aborted) return;
        problem = error instanceof Problem ? error : undefined;
        if (problem && problem.status >= 400 && problem.status < 500 && problem.status !== 429) {
          onState("ended", problem);
          return;
        }
        if (!problem && !(error instanceof DOMException)) console.error(error);
      }
      if (ending.signal.aborted) return;
      onState("waiting", problem);
      await delay(pause * (0.75 + Math.random() / 2), ending.signal);
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    }
  };
  void run();
  return () => ending.abort();
}

/**
 * @param {string} path
 * @param {string} lastId
 * @param {AbortSignal} ending
 * @param {(event: StreamEvent) => void} take
 * @param {() => void} onOpen
 */
async function readOnce(path, lastId, ending, take, onOpen) {
  const lost = new AbortController();
  const stop = () => lost.abort();
  ending.addEventListener("abort", stop);
  const watch = watchVisibility(stop);
  let silence = setTimeout(stop, SILENCE_MS);
  try {
    const response = await connect(path, lastId, lost.signal);
    onOpen();
    const parser = new EventParser(take);
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    const decoder = new TextDecoder();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(stop, SILENCE_MS);
      parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    clearTimeout(silence);
    watch();
    lost.abort();
    ending.removeEventListener("abort", stop);
  }
}

/**
 * @param {string} path
 * @param {string} lastId
 * @param {AbortSignal} signal
 */
async function connect(path, lastId, signal) {
  const ask = (/** @type {string} */ token) => {
    const headers = { Accept: "text/event-stream", Authorization: `Bearer ${token}`, ...(lastId ? { "Last-Event-ID": lastId } : {}) };
    return open("GET", path, { headers, signal, isStream: true });
  };
  const token = await accessToken();
  let response = await ask(token);
  if (response.status === 401) {
    await renew(token);
    response = await ask(await accessToken());
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** Splits the text of a stream into events (WHATWG HTML, section 9.2). */
export class EventParser {
  /** @param {(event: StreamEvent) => void} emit */
  constructor(emit) {
    this.emit = emit;
    this.rest = "";
    this.id = "";
    this.event = "message";
    /** @type {string[]} */
    this.lines = [];
  }

  /** @param {string} text */
  push(text) {
    const lines = (this.rest + text).split(/\r\n|\n|\r/);
    this.rest = lines.pop() ?? "";
    for (const line of lines) this.take(line);
  }

  /** @param {string} line */
  take(line) {
    if (line === "") {
      if (this.lines.length || this.id) this.finish();
      return;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "id") this.id = value;
    else if (name === "event") this.event = value;
    else if (name === "data") this.lines.push(value);
  }

  finish() {
    const text = this.lines.join("\n");
    let data;
    try {
      data = text ? JSON.parse(text) : undefined;
    } catch {
      data = text;
    }
    const event = { id: this.id, event: this.event, data };
    this.id = "";
    this.event = "message";
    this.lines = [];
    this.emit(event);
  }
}

/**
 * Call `stop` when the page has been hidden for a while. Returns a function that ends the watch.
 * @param {() => void} stop
 */
function watchVisibility(stop) {
  let timer = 0;
  const check = () => {
    clearTimeout(timer);
    if (document.hidden) timer = window.setTimeout(stop, HIDDEN_MS);
  };
  check();
  document.addEventListener("visibilitychange", check);
  return () => {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", check);
  };
}

/** @param {AbortSignal} signal */
function untilVisible(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((/** @type {(value?: unknown) => void} */ resolve) => {
    const check = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", check);
      resolve();
    };
    document.addEventListener("visibilitychange", check);
    signal.addEventListener("abort", check);
  });
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 */
function delay(milliseconds, signal) {
  return new Promise((/** @type {(value?: unknown) => void} */ resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
