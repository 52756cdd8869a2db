/** Dialogs: the browser's own <dialog>, which keeps the focus inside and closes with Escape. */
import { html, signal, useEffect, useId, useRef, useSignal } from "../lib/html.js";
import { dictionary } from "../lib/i18n.js";
import { Button } from "./button.js";

/** @typedef {import("../lib/html.js").Children} Children */
/**
 * @typedef {object} Question
 * @property {string} title
 * @property {Children} [body]  what will happen, and whether it can be undone
 * @property {string} action  the verb on the button, such as "Cancel the order"
 * @property {boolean} [isDestructive]
 */

const text = dictionary({ close: "Close", back: "Go back" }, { close: "Kapat", back: "Vazgeç" });

/** @param {{title: string, onClose: () => void, children?: Children, class?: string}} props */
export function Dialog({ title, onClose, children, class: name = "" }) {
  const element = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const id = useId();
  useEffect(() => {
    const dialog = element.current;
    if (dialog && !dialog.open) dialog.showModal();
    return () => dialog?.close();
  }, []);
  const onBackdrop = (/** @type {MouseEvent} */ event) => event.target === element.current && onClose();
  return html`<dialog ref=${element} class=${`dialog ${name}`} aria-labelledby=${id} onClose=${onClose} onClick=${onBackdrop}>
    <header>
      <h2 id=${id}>${title}</h2>
      <${Button} kind="quiet" icon="close" label=${text("close")} onClick=${onClose} />
    </header>
    <div class="dialog-body">${children}</div>
  </dialog>`;
}

/** @type {import("@preact/signals-core").Signal<(Question & {answer: (yes: boolean) => void}) | null>} */
const asked = signal(null);

/**
 * Ask before something that cannot be undone. True if the reader agrees.
 * @param {Question} question
 * @returns {Promise<boolean>}
 */
export function confirm(question) {
  return new Promise((resolve) => {
    asked.value = {
      ...question,
      answer: (yes) => {
        asked.value = null;
        resolve(yes);
      },
    };
  });
}

/** The place of the question, once in the page. */
export function Questions() {
  const question = useSignal(asked);
  if (!question) return null;
  const { title, body, action, isDestructive, answer } = question;
  return html`<${Dialog} title=${title} onClose=${() => answer(false)}>
    ${body && html`<p>${body}</p>`}
    <footer class="dialog-actions">
      <${Button} onClick=${() => answer(false)}>${text("back")}<//>
      <${Button} kind=${isDestructive ? "danger" : "primary"} onClick=${() => answer(true)}>${action}<//>
    </footer>
  <//>`;
}
