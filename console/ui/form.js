/** Forms: fields with labels, hints and the errors of the API at the field that they name. */
import { classes, createContext, html, useContext, useId, useState } from "../lib/html.js";
import { asProblem, Problem } from "../lib/http.js";
import { dictionary } from "../lib/i18n.js";
import { ProblemBox } from "./state.js";
import { Button } from "./button.js";

/** @typedef {import("../lib/html.js").Children} Children */
/** @typedef {{errors: Record<string, string>, isBusy: boolean}} FormState */

const text = dictionary(
  { fields: "Not sent: some fields need a change." },
  { fields: "Gönderilmedi: bazı alanlar değişmeli." },
);

const Context = createContext(/** @type {FormState} */ ({ errors: {}, isBusy: false }));

/**
 * A form that sends itself once, and shows why it was refused.
 * @param {{onSubmit: (values: Record<string, string>) => unknown, children?: Children, action: string, kind?: import("./button.js").ButtonKind, extra?: Children, class?: string}} props
 *   `onSubmit` gets the fields by name and may return a promise; `action` is the text of the button, `extra` stands beside it
 */
export function Form({ onSubmit, children, action, kind = "primary", extra, class: name }) {
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  const [isBusy, setBusy] = useState(false);
  const submit = async (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const form = /** @type {HTMLFormElement} */ (event.target);
    const values = /** @type {Record<string, string>} */ (Object.fromEntries(new FormData(form)));
    setBusy(true);
    setProblem(null);
    try {
      await onSubmit(values);
    } catch (error) {
      setProblem(aboutForm(asProblem(error), form));
      queueMicrotask(() => form.querySelector(/** @type {"input"} */ ("[aria-invalid=true]"))?.focus());
    } finally {
      setBusy(false);
    }
  };
  const errors = Object.fromEntries((problem?.errors ?? []).map((one) => [one.field, one.message]));
  return html`<${Context.Provider} value=${{ errors, isBusy }}>
    <form class=${classes("form", name)} onSubmit=${submit}>
      ${children}
      ${problem && html`<${ProblemBox} problem=${problem} />`}
      <div class="form-actions">
        <${Button} type="submit" kind=${kind} busy=${isBusy}>${action}<//>
        ${extra}
      </div>
    </form>
  <//>`;
}

/**
 * The problem without what is shown at the fields anyway.
 * @param {Problem} problem
 * @param {HTMLFormElement} form
 */
function aboutForm(problem, form) {
  if (!problem.errors.length) return problem;
  const others = problem.errors.filter((one) => !form.elements.namedItem(one.field));
  const detail = [text("fields"), ...others.map((one) => `${one.field}: ${one.message}`)].join(" ");
  const shown = new Problem({ status: problem.status, code: "FORM", detail, errors: problem.errors });
  shown.requestId = problem.requestId;
  return shown;
}

/**
 * @typedef {object} FieldProps
 * @property {string} name  as in the API, so that its errors find the field
 * @property {string} label
 * @property {string} [hint]
 * @property {string} [type]
 * @property {string | number} [value]  the first value
 * @property {boolean} [required]
 * @property {string} [autocomplete]
 * @property {string} [pattern]
 * @property {number} [min]
 * @property {number} [max]
 * @property {number} [maxlength]
 * @property {string} [placeholder]
 * @property {"decimal" | "numeric" | "email" | "search"} [inputmode]
 * @property {(value: string) => void} [onInput]
 * @property {boolean} [hiddenLabel]  the label is for screen readers only
 */

/** A field of one line; `type="textarea"` has several. @param {FieldProps} props */
export function Field({ name, label, hint, type = "text", value, onInput, hiddenLabel, ...rest }) {
  const id = useId();
  const error = useContext(Context).errors[name];
  const described = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ") || undefined;
  const shared = {
    id,
    name,
    "aria-invalid": error ? "true" : undefined,
    "aria-describedby": described,
    onInput: onInput && ((/** @type {any} */ event) => onInput(event.target.value)),
    ...rest,
  };
  return html`<div class="field">
    <label for=${id} class=${hiddenLabel ? "visually-hidden" : ""}>${label}</label>
    ${type === "textarea"
      ? html`<textarea rows="3" ...${shared} defaultValue=${value}></textarea>`
      : html`<input type=${type} ...${shared} defaultValue=${value} />`}
    ${hint && html`<p id=${`${id}-hint`} class="hint">${hint}</p>`}
    ${error && html`<p id=${`${id}-error`} class="field-error">${error}</p>`}
  </div>`;
}

/**
 * @param {{name: string, label: string, options: {value: string, label: string}[], value?: string, hint?: string, onInput?: (value: string) => void, hiddenLabel?: boolean}} props
 */
export function Select({ name, label, options, value, hint, onInput, hiddenLabel }) {
  const id = useId();
  const error = useContext(Context).errors[name];
  return html`<div class="field">
    <label for=${id} class=${hiddenLabel ? "visually-hidden" : ""}>${label}</label>
    <select
      id=${id}
      name=${name}
      aria-invalid=${error ? "true" : undefined}
      onInput=${onInput && ((/** @type {any} */ event) => onInput(event.target.value))}
    >
      ${options.map((one) => html`<option key=${one.value} value=${one.value} selected=${one.value === (value ?? options[0]?.value)}>${one.label}</option>`)}
    </select>
    ${hint && html`<p class="hint">${hint}</p>`} ${error && html`<p class="field-error">${error}</p>`}
  </div>`;
}

/** @param {{name: string, label: string, checked?: boolean, value?: string, onInput?: (checked: boolean) => void}} props */
export function Checkbox({ name, label, checked = false, value = "on", onInput }) {
  return html`<label class="checkbox">
    <input
      type="checkbox"
      name=${name}
      value=${value}
      defaultChecked=${checked}
      onInput=${onInput && ((/** @type {any} */ event) => onInput(event.target.checked))}
    />
    <span>${label}</span>
  </label>`;
}
