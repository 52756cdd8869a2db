/** Icons: strokes on a grid of 20. They are decoration; the text beside them, or the label, says what they mean. */
import { html } from "../lib/html.js";

const PATHS = /** @type {const} */ ({
  alert: "M10 6v5m0 3v.01M10 2 1.5 17.5h17Z",
  bell: "M5 14V9a5 5 0 0 1 10 0v5l1.5 2h-13ZM8.5 18h3",
  cart: "M2 3h2.5l2 9.5h8.5L17 6H5.5M7.5 16.5v.01M14 16.5v.01",
  check: "m4 10.5 4 4 8-9",
  close: "m5 5 10 10M15 5 5 15",
  menu: "M3 5h14M3 10h14M3 15h14",
  minus: "M5 10h10",
  plus: "M10 5v10M5 10h10",
  search: "M9 15A6 6 0 1 0 9 3a6 6 0 0 0 0 12Zm4.5-1.5L18 18",
  user: "M10 10a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7Zm-7 8c0-4 3-6 7-6s7 2 7 6",
});

/** @typedef {keyof typeof PATHS} IconName */

/** @param {{name: IconName}} props */
export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 20 20" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;
}
