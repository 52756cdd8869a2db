/** Files that the reader saves: CSV of a list of the API. */
import { api } from "./api.js";

/** @typedef {{label: string, value: (row: any) => string | number | null | undefined}} CsvColumn */

const MOST_ROWS = 10_000;
const PAGE = 100;

/**
 * All items of a list of the API, up to 10,000.
 * @param {string} path
 * @param {import("./api.js").Query} query
 * @returns {Promise<{rows: any[], isComplete: boolean}>}
 */
export async function allPages(path, query) {
  /** @type {any[]} */
  const rows = [];
  /** @type {string | null} */
  let cursor = null;
  do {
    const page = /** @type {any} */ (await api.get(path, { ...query, limit: PAGE, cursor }));
    rows.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor && rows.length < MOST_ROWS);
  return { rows, isComplete: !cursor };
}

/**
 * @param {any[]} rows
 * @param {CsvColumn[]} columns
 */
export function csv(rows, columns) {
  const lines = [columns.map((column) => cell(column.label)), ...rows.map((row) => columns.map((column) => cell(column.value(row))))];
  return `${lines.map((line) => line.join(",")).join("\r\n")}\r\n`;
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
