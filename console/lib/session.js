/**
 * Who is signed in. The access token is in the memory of this page only, the refresh token in a cookie that no script
 * can read. All tabs have the same session: one renews it, and tells the others.
 */
import { signal } from "./html.js";
import { asProblem, returns, send } from "./http.js";
import { language } from "./preferences.js";

/** @typedef {{id: string, email: string, roles: string[], is_active: boolean, email_verified: boolean, language: string, created_at: string, updated_at: string}} User */
/** @typedef {{user: User, accessToken: string, expiresAt: number}} Session  `expiresAt` in milliseconds since 1970 */
/** @typedef {{email: string, password: string, role: string}} DemoAccount */
/** @typedef {{in_production: boolean, is_signed_in: boolean, demo_accounts: DemoAccount[], supervisor_url: string | null}} BrowserState */

const NAME = "order-suite.session";
/** A token that is valid for less than this is renewed first. */
const MARGIN_MS = 60_000;

/** @type {import("@preact/signals-core").Signal<Session | null>} */
export const session = signal(null);
/** @type {import("@preact/signals-core").Signal<BrowserState>} */
export const browserState = signal({ in_production: true, is_signed_in: false, demo_accounts: [], supervisor_url: null });
/** True after a session ended without the reader's doing, until the next sign-in. */
export const hasExpired = signal(false);
/** True at the start of the page, until it is known who is signed in. */
export const isStarting = signal(true);

const channel = new BroadcastChannel(NAME);
channel.onmessage = (/** @type {MessageEvent} */ message) => {
  hasExpired.value = false;
  session.value = message.data;
};

/** Find out who is signed in, at the start of the page. Without a response, try again when the gateway is back. */
export async function startSession() {
  const known = returns.peek();
  try {
    browserState.value = (await send("GET", "/session")).data;
    if (browserState.value.is_signed_in && !session.peek()) await renew();
  } catch (error) {
    asProblem(error);
    const stop = returns.subscribe((count) => {
      if (count === known) return;
      queueMicrotask(() => stop());
      void startSession();
    });
  }
  isStarting.value = false;
}

/**
 * @param {string} email
 * @param {string} password
 */
export async function signIn(email, password) {
  await begin((await send("POST", "/users/login", { body: { email, password } })).data);
}

/**
 * @param {string} email
 * @param {string} password
 * @param {string} key  the idempotency key
 */
export async function signUp(email, password, key) {
  const body = { email, password, language: language.value };
  await begin((await send("POST", "/users/register", { body, headers: { "Idempotency-Key": key } })).data);
}

/** @param {{refresh_token: string, user: User, access_token: string, expires_in: number}} opened */
async function begin(opened) {
  await send("PUT", "/session", { body: { refresh_token: opened.refresh_token } });
  keep(opened);
}

/** End the session, in all tabs. */
export async function signOut() {
  await send("DELETE", "/session");
  share(null);
}

/**
 * The access token, renewed if it is about to expire; empty without a session. Throws Problem.
 * @returns {Promise<string>}
 */
export async function accessToken() {
  const current = session.peek();
  if (current && current.expiresAt - Date.now() < MARGIN_MS) await renew(current.accessToken);
  return session.peek()?.accessToken ?? "";
}

/**
 * Replace the access token `used`, unless another tab or request has done that meanwhile. Afterwards there is no
 * session if it is over. Throws Problem if the gateway does not respond.
 * @param {string} [used]
 */
export async function renew(used) {
  await exclusively(async () => {
    if (used !== undefined && session.peek()?.accessToken !== used) return;
    try {
      keep((await send("POST", "/session")).data);
    } catch (error) {
      if (asProblem(error).status !== 401 && asProblem(error).status !== 403) throw error;
      share(null);
      hasExpired.value = used !== undefined;
      await send("DELETE", "/session").catch(() => undefined); // the cookie is of no use
    }
  });
}

/** @param {{user: User, access_token: string, expires_in: number}} opened */
function keep(opened) {
  const expiresAt = Date.now() + opened.expires_in * 1000;
  share({ user: opened.user, accessToken: opened.access_token, expiresAt });
}

/** @param {Session | null} current */
function share(current) {
  hasExpired.value = false;
  session.value = current;
  channel.postMessage(current);
}

/** @type {Promise<void>} */
let turn = Promise.resolve();

/**
 * Run `work` when no other tab does. Outside of a secure context, where there are no locks, only within this tab: the
 * gateway gives tabs that renew at the same time the same tokens.
 * @param {() => Promise<void>} work
 */
function exclusively(work) {
  if (navigator.locks) return navigator.locks.request(NAME, work);
  const next = turn.then(work);
  turn = next.catch(() => undefined);
  return next;
}

/** @param {Session | null} current */
export function isAdmin(current) {
  return current?.user.roles.includes("admin") ?? false;
}
