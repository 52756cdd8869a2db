/** Short messages at the edge of the page, read out by screen readers. */
import { html, signal, useSignal } from "../lib/html.js";
import { dictionary } from "../lib/i18n.js";
import { problemText } from "../lib/problems.js";
import { Icon } from "./icon.js";

const SHOWN_MS = 6_000;
const MOST = 4;

const text = dictionary({ dismiss: "Dismiss", messages: "Messages" }, { dismiss: "Kapat", messages: "İletiler" });

/** @typedef {{id: number, message: string, tone: "info" | "good" | "bad"}} Toast */

/** @type {import("@preact/signals-core").Signal<Toast[]>} */
const toasts = signal([]);
let count = 0;

/**
 * @param {string} message
 * @param {Toast["tone"]} [tone]
 */
export function toast(message, tone = "good") {
  count += 1;
  const id = count;
  toasts.value = [...toasts.value.filter((one) => one.message !== message), { id, message, tone }].slice(-MOST);
  setTimeout(() => dismiss(id), tone === "bad" ? SHOWN_MS * 2 : SHOWN_MS);
}

/** @param {import("../lib/http.js").Problem} problem */
export function toastProblem(problem) {
  toast(problemText(problem), "bad");
}

/** @param {number} id */
function dismiss(id) {
  toasts.value = toasts.value.filter((one) => one.id !== id);
}

/** The place of the messages, once in the page. */
export function Toasts() {
  const shown = useSignal(toasts);
  return html`<div class="toasts" role="region" aria-label=${text("messages")} aria-live="polite">
    ${shown.map(
      (one) => html`<div key=${one.id} class=${`toast ${one.tone}`}>
        <span>${one.message}</span>
        <button type="button" class="button quiet icon-only" aria-label=${text("dismiss")} onClick=${() => dismiss(one.id)}>
          <${Icon} name="close" />
        </button>
      </div>`,
    )}
  </div>`;
}
