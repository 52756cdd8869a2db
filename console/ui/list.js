/** A list of the API as a table, in each of its states, with a button for more. */
import { html } from "../lib/html.js";
import { Empty, Loaded } from "./state.js";
import { More, Table } from "./table.js";

/**
 * @typedef {object} ListProps  and any property of a Table
 * @property {import("../lib/resource.js").Resource<any[]> & {hasMore?: boolean, loadMore?: () => Promise<void>}} pages
 * @property {string} caption
 * @property {import("./table.js").Column<any>[]} columns
 * @property {string} none  shown for an empty list
 * @property {string} [noneText]  what to do then
 * @property {number} [lines]
 * @property {(row: any) => string} [rowKey]
 * @property {(row: any) => import("../lib/html.js").Children} [actions]
 */

/** @param {any} row */
const idOf = (row) => row.id;

/** @param {ListProps & Record<string, unknown>} props */
export function List({ pages, none, noneText, lines = 10, rowKey = idOf, ...table }) {
  return html`<${Loaded} resource=${pages} lines=${lines} empty=${html`<${Empty} title=${none}>${noneText && html`<p>${noneText}</p>`}<//>`}>
      ${(/** @type {any[]} */ rows) => html`<${Table} ...${table} rows=${rows} rowKey=${rowKey} />`}
    <//>
    ${pages.loadMore && html`<${More} pages=${pages} />`}`;
}
