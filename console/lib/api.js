/** The REST API, as the signed-in user: `await api.get("/orders", {limit: 20})`. Every function throws Problem. */
import { Problem, send } from "./http.js";
import { accessToken, renew, session } from "./session.js";

/** @typedef {Record<string, string | number | boolean | null | undefined>} Query */
/** @typedef {import("./http.js").Reply} Reply */
/** @typedef {import("./http.js").Sending} Sending */

/** How often a request is sent again after a failure that a retry can mend. */
const RETRIES = 2;
const LONGEST_WAIT_S = 3;
const UNKNOWN_OUTCOME = new Set(["OFFLINE", "NO_RESPONSE", "UPSTREAM_TIMEOUT"]);

/**
 * @param {string} path
 * @param {Query} [query]  empty values are left out
 */
export function withQuery(path, query = {}) {
  const stated = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(stated.map(([name, value]) => [name, String(value)])).toString();
  return text ? `${path}?${text}` : path;
}

/**
 * A key for one action of a reader: the same for all attempts, so that the action has one effect.
 * @returns {string}
 */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Keys for the attempts of a form: the same content has the same key, so sending it again has no second effect.
 * @returns {(content: unknown) => string}
 */
export function keyring() {
  /** @type {Map<string, string>} */
  const keys = new Map();
  return (content) => {
    const text = JSON.stringify(content);
    const key = keys.get(text) ?? newKey();
    keys.set(text, key);
    return key;
  };
}

/**
 * Send a request with the access token, once more with a new one after 401, and again after passing failures if that
 * is safe: for GET, and for a request with an idempotency key. Returns data, status and ETag.
 * @param {string} method
 * @param {string} path
 * @param {Sending & {key?: string}} [sending]
 * @returns {Promise<Reply>}
 */
export async function call(method, path, sending = {}) {
  const isSafe = method === "GET" || sending.key !== undefined;
  /** @type {Record<string, string>} */
  const keyed = sending.key === undefined ? {} : { "Idempotency-Key": sending.key };
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await sendAs(method, path, { ...sending, headers: { ...keyed, ...sending.headers } });
    } catch (error) {
      if (!(error instanceof Problem) || !isSafe || attempt >= RETRIES || !isPassing(error)) throw error;
      await wait(Math.max(0.3 * 2 ** attempt, error.retryAfter) * (1 + Math.random() / 4));
    }
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {Sending} sending
 */
async function sendAs(method, path, sending) {
  const token = await accessToken();
  try {
    return await send(method, path, authorised(sending, token));
  } catch (error) {
    if (!token || !(error instanceof Problem) || !isAboutToken(error)) throw error;
    await renew(token);
    const renewed = session.peek()?.accessToken;
    if (!renewed) throw error;
    return send(method, path, authorised(sending, renewed));
  }
}

/**
 * @param {Sending} sending
 * @param {string} token
 * @returns {Sending}
 */
function authorised(sending, token) {
  return token ? { ...sending, headers: { ...sending.headers, Authorization: `Bearer ${token}` } } : sending;
}

/** @param {Problem} problem */
function isAboutToken(problem) {
  return problem.status === 401 && (problem.code === "INVALID_TOKEN" || problem.code === "TOKEN_REVOKED");
}

/** @param {Problem} problem */
function isPassing(problem) {
  const waits = problem.code === "SERVICE_UNAVAILABLE" || problem.code === "IDEMPOTENCY_KEY_IN_USE";
  return problem.retryAfter <= LONGEST_WAIT_S && (waits || UNKNOWN_OUTCOME.has(problem.code));
}

/** @param {number} seconds */
function wait(seconds) {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

/** @param {Sending | undefined} sending */
function withKey(sending) {
  return { key: newKey(), ...sending };
}

export const api = {
  /**
   * The resource at a path.
   * @param {string} path
   * @param {Query} [query]
   * @param {Sending} [sending]
   * @returns {Promise<any>}
   */
  get: async (path, query, sending) => (await call("GET", withQuery(path, query), sending)).data,
  /**
   * The resource with its ETag, for a later change with `ifMatch`.
   * @param {string} path
   * @param {Sending} [sending]
   */
  read: (path, sending) => call("GET", path, sending),
  /**
   * Create or do something, once: an idempotency key is added.
   * @param {string} path
   * @param {unknown} [body]
   * @param {Sending & {key?: string}} [sending]
   * @returns {Promise<any>}
   */
  post: async (path, body, sending) => (await call("POST", path, { body, ...withKey(sending) })).data,
  /**
   * @param {string} path
   * @param {unknown} body
   * @param {string | null} [ifMatch]  the ETag that the reader has seen
   * @returns {Promise<any>}
   */
  put: async (path, body, ifMatch) => (await call("PUT", path, { body, headers: matching(ifMatch) })).data,
  /**
   * @param {string} path
   * @param {unknown} body
   * @param {string | null} [ifMatch]
   * @returns {Promise<any>}
   */
  patch: async (path, body, ifMatch) => (await call("PATCH", path, { body, headers: matching(ifMatch) })).data,
  /**
   * @param {string} path
   * @param {unknown} [body]
   * @returns {Promise<any>}
   */
  delete: async (path, body) => (await call("DELETE", path, { body })).data,
};

/**
 * @param {string | null | undefined} etag
 * @returns {Record<string, string>}
 */
function matching(etag) {
  return etag ? { "If-Match": etag } : {};
}
