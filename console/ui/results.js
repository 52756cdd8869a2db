/** What became of each of several things, and the bar of actions for the selected ones. */
import { html } from "../lib/html.js";
import { dictionary } from "../lib/i18n.js";
import { Badge } from "./badge.js";
import { Button } from "./button.js";
import { Panel } from "./page.js";

/** @typedef {import("../lib/bulk.js").Result} Result */
/** @typedef {import("../lib/html.js").Children} Children */

const text = dictionary(
  {
    results: "Results",
    done: { one: "{count} done", other: "{count} done" },
    failed: { one: "{count} failed", other: "{count} failed" },
    close: "Close",
    more: { one: "and {count} more", other: "and {count} more" },
    selected: { one: "{count} selected", other: "{count} selected" },
    none: "Clear the selection",
  },
  {
    results: "Sonuçlar",
    done: "{count} tamam",
    failed: "{count} başarısız",
    close: "Kapat",
    more: "ve {count} tane daha",
    selected: "{count} seçili",
    none: "Seçimi kaldır",
  },
);

const SHOWN = 100;

/** @param {{results: Result[] | null, label?: (key: string) => Children, onClose: () => void}} props */
export function Results({ results, label = (key) => key, onClose }) {
  if (!results) return null;
  const failed = results.filter((one) => !one.isDone);
  const shown = [...failed, ...results.filter((one) => one.isDone)].slice(0, SHOWN);
  return html`<${Panel} title=${text("results")} actions=${html`<${Button} kind="quiet" icon="close" label=${text("close")} onClick=${onClose} />`}>
    <p role="status">
      <${Badge} tone="good">${text("done", { count: results.length - failed.length })}<//>
      ${failed.length > 0 && html` <${Badge} tone="bad">${text("failed", { count: failed.length })}<//>`}
    </p>
    <ul class="results" tabindex="0">
      ${shown.map(
        (one) => html`<li key=${one.key}>
          <span>${label(one.key)}</span>
          <span class=${one.isDone ? "good-text" : "bad-text"}>${one.message}</span>
        </li>`,
      )}
      ${results.length > SHOWN && html`<li class="muted">${text("more", { count: results.length - SHOWN })}</li>`}
    </ul>
  <//>`;
}

/** The actions for the selected rows; its place is always there, so that the table does not move. @param {{selected: Set<string>, onClear: () => void, children?: Children}} props */
export function SelectionBar({ selected, onClear, children }) {
  return html`<div class="selection-bar" role="group">
    <span class="count" aria-live="polite">${text("selected", { count: selected.size })}</span>
    ${children}
    <${Button} kind="quiet" disabled=${!selected.size} onClick=${onClear}>${text("none")}<//>
  </div>`;
}
