/** Buttons and links that look like buttons. A button is busy until the promise of its action ends. */
import { classes, html, useEffect, useRef, useState } from "../lib/html.js";
import { asProblem } from "../lib/http.js";
import { toastProblem } from "./toast.js";
import { Icon } from "./icon.js";

/** @typedef {"primary" | "plain" | "quiet" | "danger"} ButtonKind */
/**
 * @typedef {object} ButtonProps
 * @property {() => unknown} [onClick]  may return a promise; a Problem that it throws is shown as a toast
 * @property {ButtonKind} [kind]
 * @property {"button" | "submit"} [type]
 * @property {boolean} [busy]
 * @property {boolean} [disabled]
 * @property {string} [label]  for screen readers, where the button shows an icon only
 * @property {import("./icon.js").IconName} [icon]
 * @property {string} [class]
 * @property {import("../lib/html.js").Children} [children]
 * @property {boolean} [pressed]  for a button that switches something on and off
 */

/** @param {ButtonProps} props */
export function Button({ onClick, kind = "plain", type = "button", busy = false, disabled = false, label, icon, children, pressed, ...rest }) {
  const [isRunning, setRunning] = useState(false);
  const isThere = useRef(true);
  useEffect(() => () => void (isThere.current = false), []);
  const run = async () => {
    const result = onClick?.();
    if (!(result instanceof Promise)) return;
    setRunning(true);
    try {
      await result;
    } catch (error) {
      toastProblem(asProblem(error));
    } finally {
      if (isThere.current) setRunning(false);
    }
  };
  const isBusy = busy || isRunning;
  return html`<button
    type=${type}
    class=${classes("button", kind, !children && "icon-only", rest.class)}
    aria-busy=${isBusy ? "true" : undefined}
    aria-label=${label}
    aria-pressed=${pressed === undefined ? undefined : String(pressed)}
    title=${label}
    disabled=${disabled || isBusy}
    onClick=${onClick && run}
  >
    ${icon && html`<${Icon} name=${icon} />`}${children}
  </button>`;
}

/** @param {{href: string, kind?: ButtonKind, children?: import("../lib/html.js").Children, download?: string}} props */
export function ButtonLink({ href, kind = "plain", children, download }) {
  return html`<a class=${classes("button", kind)} href=${href} download=${download}>${children}</a>`;
}
