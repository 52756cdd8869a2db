/** One request to the gateway: deadline, problem details, and whether the gateway can be reached at all. */
import { signal } from "./html.js";

export const DEADLINE_MS = 12_000;
const PROBE_MS = 2_000;

/** @typedef {{field: string, message: string}} FieldError */
/** @typedef {{data: any, status: number, etag: string | null, isReplayed: boolean}} Reply */
/**
 * @typedef {object} Sending
 * @property {unknown} [body]  sent as JSON; a Blob or a string is sent as it is, with `type`
 * @property {string} [type]
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 * @property {number} [deadline]  milliseconds
 * @property {"json" | "blob"} [as]
 */

/** True while the gateway responds; set by every request. */
export const isOnline = signal(true);
/** Counts how often the gateway came back: what was loaded before may be outdated. */
export const returns = signal(0);

/** Why a request failed: problem details of the gateway, or `OFFLINE` and `NO_RESPONSE` where it sent none. */
export class Problem extends Error {
  /** @param {{status?: number, code: string, detail?: string, errors?: FieldError[], request_id?: string, retryAfter?: number}} facts */
  constructor(facts) {
    super(facts.detail || facts.code);
    this.status = facts.status ?? 0;
    this.code = facts.code;
    this.errors = facts.errors ?? [];
    this.requestId = facts.request_id ?? "";
    /** Seconds. */
    this.retryAfter = facts.retryAfter ?? 0;
  }
}

/**
 * @param {unknown} error
 * @returns {Problem}
 */
export function asProblem(error) {
  if (error instanceof Problem) return error;
  console.error(error);
  return new Problem({ code: "PAGE_ERROR", detail: String(error) });
}

/**
 * Send a request and return its reply. Throws Problem; an AbortError if the caller's signal ends it.
 * @param {string} method
 * @param {string} path
 * @param {Sending} [sending]
 * @returns {Promise<Reply>}
 */
export async function send(method, path, sending = {}) {
  const response = await open(method, path, sending);
  if (!response.ok) throw await problemOf(response);
  try {
    const data = response.status === 204 ? null : await (sending.as === "blob" ? response.blob() : response.json());
    const isReplayed = response.headers.get("Idempotent-Replayed") === "true";
    return { data, status: response.status, etag: response.headers.get("ETag"), isReplayed };
  } catch (error) {
    throw sending.signal?.aborted ? error : noResponse(error);
  }
}

/**
 * Send a request and return the response as soon as its head is there.
 * @param {string} method
 * @param {string} path
 * @param {Sending & {isStream?: boolean}} sending
 */
export async function open(method, path, sending) {
  const isRaw = sending.body instanceof Blob || typeof sending.body === "string";
  const body = isRaw ? /** @type {BodyInit} */ (sending.body) : sending.body === undefined ? undefined : JSON.stringify(sending.body);
  const type = sending.type ?? (body === undefined ? undefined : "application/json");
  const deadline = sending.isStream ? undefined : AbortSignal.timeout(sending.deadline ?? DEADLINE_MS);
  const signals = [deadline, sending.signal].filter((one) => one !== undefined);
  const headers = { ...(type ? { "Content-Type": type } : {}), ...sending.headers };
  try {
    const response = await fetch(path, { method, body, headers, signal: AbortSignal.any(signals), cache: "no-store" });
    reached();
    return response;
  } catch (error) {
    if (sending.signal?.aborted) throw error;
    throw noResponse(error);
  }
}

/**
 * @param {unknown} error
 * @returns {Problem}
 */
function noResponse(error) {
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return new Problem({ code: "NO_RESPONSE" });
  }
  lost();
  return new Problem({ code: "OFFLINE" });
}

/**
 * @param {Response} response
 * @returns {Promise<Problem>}
 */
export async function problemOf(response) {
  const retryAfter = Number(response.headers.get("Retry-After") ?? 0);
  try {
    return new Problem({ status: response.status, retryAfter, ...(await response.json()) });
  } catch {
    return new Problem({ status: response.status, code: `HTTP_${response.status}`, retryAfter });
  }
}

function reached() {
  if (isOnline.peek()) return;
  isOnline.value = true;
  returns.value += 1;
}

/** Something else than a request of the API could not be loaded: find out whether the gateway is away. */
export async function checkGateway() {
  try {
    await fetch("/health/live", { signal: AbortSignal.timeout(PROBE_MS), cache: "no-store" });
  } catch {
    lost();
  }
}

/** Ask from time to time whether the gateway is back. */
function lost() {
  if (!isOnline.peek()) return;
  isOnline.value = false;
  const timer = setInterval(async () => {
    try {
      await fetch("/health/live", { signal: AbortSignal.timeout(PROBE_MS), cache: "no-store" });
      reached();
    } catch {
      // still away
    }
    if (isOnline.peek()) clearInterval(timer);
  }, PROBE_MS);
}
