/** Files that the reader saves: CSV of a list of the API. */
import { word } from "../lib/admin.js";
import { api } from "../lib/api.js";
import { number } from "../lib/format.js";
import { toast } from "./toast.js";

const MOST_ROWS = 10_000;
const PAGE = 100;

/**
 * Save a list of the API as CSV, up to 10,000 rows.
 * @param {"orders" | "payments" | "inventory"} name
 * @param {import("../lib/api.js").Query} query
 * @param {string[]} fields
 * @param {(row: any) => any} [change]  of each row before it is written
 */
export async function exportList(name, query, fields, change = (row) => row) {
  /** @type {any[]} */
  const rows = [];
  /** @type {string | null} */
  let cursor = null;
  do {
    const page = /** @type {any} */ (await api.get(`/${name}`, { ...query, limit: PAGE, cursor }));
    rows.push(...page.items.map(change));
    cursor = page.next_cursor;
  } while (cursor && rows.length < MOST_ROWS);
  const lines = [fields, ...rows.map((row) => fields.map((field) => row[field]))];
  save(`${name}.csv`, lines.map((line) => `${line.map(cell).join(",")}\r\n`).join(""));
  if (cursor) toast(word("capped", { count: number(rows.length) }), "info");
}

/** A spreadsheet would run a text that begins like a formula. @param {unknown} value */
function cell(value) {
  const text = String(value ?? "");
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/**
 * Let the reader save a file.
 * @param {string} name
 * @param {Blob | string} content  a string is saved as CSV, which spreadsheets read as UTF-8
 */
export function save(name, content) {
  const blob = typeof content === "string" ? new Blob(["\ufeff", content], { type: "text/csv" }) : content;
  const address = URL.createObjectURL(blob);
  const anchor = document.createElement("a");
  anchor.href = address;
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
