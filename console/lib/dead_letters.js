/** What an operator does with dead letters, and what one says about its cause. */
import { api } from "./api.js";
import { dictionary } from "./i18n.js";
import { Problem } from "./http.js";
import { problemText } from "./problems.js";

/** @typedef {"replay" | "discard"} Action */
/** @typedef {import("./bulk.js").Result} Result */

/** The API takes up to this many ids at a time. */
const AT_ONCE = 100;
const ABOUT_ORDERS = /^(order|payment)\.|^inventory\.stock_(reserved|failed|committed|released)$/;

const text = dictionary(
  { replayed: "Put back into its queue", discarded: "Deleted" },
  { replayed: "Kuyruğuna geri kondu", discarded: "Silindi" },
);

/** @param {any} item */
function resultOf(item) {
  const isDone = item.outcome !== "failed";
  const message = isDone ? text(item.outcome) : problemText(new Problem({ code: item.code, detail: item.detail }));
  return { key: item.id, isDone, message };
}

/**
 * Replay or discard some dead letters.
 * @param {Action} action
 * @param {Iterable<string>} ids
 * @returns {Promise<Result[]>}
 */
export async function actOnIds(action, ids) {
  const all = [...ids];
  /** @type {Result[]} */
  const results = [];
  for (let at = 0; at < all.length; at += AT_ONCE) {
    const done = await api.post(`/admin/dead-letters/${action}`, { ids: all.slice(at, at + AT_ONCE) });
    results.push(...done.items.map(resultOf));
  }
  return results;
}

/**
 * Replay or discard a group, a hundred at a time. It ends when as many as `count` were handled, because those that fail
 * again come back into the group; or when nothing could be done with a whole hundred.
 * @param {Action} action
 * @param {{group: string, count: number}} group
 * @param {(results: Result[]) => void} onProgress
 * @returns {Promise<Result[]>}
 */
export async function actOnGroup(action, { group, count }, onProgress) {
  /** @type {Result[]} */
  const results = [];
  for (;;) {
    const done = await api.post(`/admin/dead-letters/${action}`, { group });
    const latest = done.items.map(resultOf);
    results.push(...latest);
    onProgress([...results]);
    const isStuck = latest.every((/** @type {Result} */ one) => !one.isDone);
    if (isStuck || done.remaining === 0 || results.length >= count) return results;
  }
}

/** The order that a dead letter is about, null for other messages. @param {any} letter */
export function orderOf(letter) {
  const event = letter.event ?? letter.queue.replace(/^.*\.on_/, "").replace("_", ".");
  return letter.correlation_id && ABOUT_ORDERS.test(event) ? String(letter.correlation_id) : null;
}

/** The trace of the message (W3C traceparent), empty without one. @param {any} letter */
export function traceOf(letter) {
  return String(letter.headers["traceparent"] ?? "").split("-")[1] ?? "";
}
