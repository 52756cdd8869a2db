/** Tables of data; on a phone each row becomes a card. */
import { classes, html } from "../lib/html.js";
import { dictionary } from "../lib/i18n.js";
import { Button } from "./button.js";

/** @typedef {import("../lib/html.js").Children} Children */
/**
 * @template T
 * @typedef {object} Column
 * @property {string} label
 * @property {(row: T) => Children} value
 * @property {"end"} [align]  numbers stand at the end, below each other
 */
/**
 * @template T
 * @typedef {object} TableProps
 * @property {string} caption  what the table lists, for screen readers
 * @property {T[]} rows
 * @property {Column<T>[]} columns
 * @property {(row: T) => string} rowKey
 * @property {(row: T) => Children} [actions]  at the end of each row, the destructive one last
 * @property {Set<string>} [selected]  with `onSelect`: keys of the selected rows, which get check boxes
 * @property {(selected: Set<string>) => void} [onSelect]
 * @property {(row: T) => string} [rowLabel]  the name of a row for its check box
 */

const text = dictionary(
  { all: "Select all", one: "Select {name}", more: "Show more", actions: "Actions" },
  { all: "Tümünü seç", one: "{name} seç", more: "Daha fazla", actions: "İşlemler" },
);

/**
 * @template T
 * @param {TableProps<T>} props
 */
export function Table({ caption, rows, columns, rowKey, actions, selected, onSelect, rowLabel = rowKey }) {
  const toggle = (/** @type {string} */ key) => {
    const next = new Set(selected);
    if (!next.delete(key)) next.add(key);
    onSelect?.(next);
  };
  const areAll = rows.length > 0 && rows.every((row) => selected?.has(rowKey(row)));
  const toggleAll = () => onSelect?.(areAll ? new Set() : new Set(rows.map(rowKey)));
  return html`<div class="table-frame" tabindex="0" role="region" aria-label=${caption}>
    <table class="table">
      <caption class="visually-hidden">${caption}</caption>
      <thead>
        <tr>
          ${onSelect && html`<th class="select"><input type="checkbox" aria-label=${text("all")} checked=${areAll} onInput=${toggleAll} /></th>`}
          ${columns.map((column) => html`<th key=${column.label} scope="col" class=${classes(column.align)}>${column.label}</th>`)}
          ${actions && html`<th scope="col"><span class="visually-hidden">${text("actions")}</span></th>`}
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          (row) => html`<tr key=${rowKey(row)} class=${classes(selected?.has(rowKey(row)) && "selected")}>
            ${onSelect &&
            html`<td class="select">
              <input type="checkbox" aria-label=${text("one", { name: rowLabel(row) })} checked=${selected?.has(rowKey(row))} onInput=${() => toggle(rowKey(row))} />
            </td>`}
            ${columns.map((column) => html`<td key=${column.label} data-label=${column.label} class=${classes(column.align)}>${column.value(row)}</td>`)}
            ${actions && html`<td class="row-actions">${actions(row)}</td>`}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/** The button below a list that has more. @param {{pages: {hasMore: boolean, loadMore: () => Promise<void>}}} props */
export function More({ pages }) {
  return pages.hasMore ? html`<div class="more"><${Button} onClick=${pages.loadMore}>${text("more")}<//></div>` : null;
}
