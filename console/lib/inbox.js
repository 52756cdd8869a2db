/** The notifications of the signed-in user, as they arrive. Only visible pages keep the stream open. */
import { signal } from "./html.js";
import { api } from "./api.js";
import { asProblem } from "./http.js";
import { session } from "./session.js";
import { follow } from "./stream.js";

/** @typedef {{id: string, order_id: string | null, kind: string, subject: string, body: string, status: "SENT" | "READ", created_at: string, read_at: string | null}} Notification */

/** More unread ones are not counted. */
export const MOST_COUNTED = 100;

/** How many are unread, at most MOST_COUNTED. */
export const unread = signal(0);
/** The one that arrived last, null at first. */
export const arrived = signal(/** @type {Notification | null} */ (null));

/** Keep `unread` and `arrived` up to date for whoever is signed in. Returns a function that ends it. */
export function watchInbox() {
  let user = "";
  let stop = () => {};
  const end = session.subscribe((current) => {
    const now = current?.user.id ?? "";
    if (now === user) return;
    user = now;
    stop();
    unread.value = 0;
    arrived.value = null;
    stop = user ? follow("/notifications/stream", { onEvent, onState }) : () => {};
  });
  return () => {
    end();
    stop();
  };
}

/** @param {import("./stream.js").StreamEvent} event */
function onEvent({ event, data }) {
  if (event !== "message") return;
  arrived.value = data;
  unread.value = Math.min(MOST_COUNTED, unread.peek() + 1);
}

/** Count again with each connection: another page may have read some meanwhile. @param {string} state */
function onState(state) {
  if (state === "live") void countUnread();
}

export async function countUnread() {
  try {
    const page = await api.get("/notifications", { limit: MOST_COUNTED });
    unread.value = page.items.filter((/** @type {Notification} */ one) => one.status === "SENT").length;
  } catch (error) {
    asProblem(error); // the number is a hint only
  }
}
