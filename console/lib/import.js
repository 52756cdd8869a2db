/** An import of a file: sending it, and its progress until it has ended. */
import { useEffect, useState } from "./html.js";
import { api, call, newKey } from "./api.js";
import { asProblem } from "./http.js";
import { follow } from "./stream.js";

/** @typedef {"products" | "inventory"} Kind */
/** @typedef {{id: string, status: string, mode: string, staged: number, merged: number, created: number, updated: number, unchanged: number, failed: number, errors?: {line: number, field: string, message: string}[]}} Import */

const UPLOAD_MS = 300_000;
const OVER = new Set(["DONE", "REJECTED", "FAILED"]);

/** @param {Import} one */
export const isOver = (one) => OVER.has(one.status);

/**
 * Send a file. The import goes on after the response if it is large. Throws Problem.
 * @param {Kind} kind
 * @param {File} file
 * @param {string} mode
 * @returns {Promise<Import>}
 */
export async function sendFile(kind, file, mode) {
  const type = /\.(jsonl|ndjson)$/i.test(file.name) ? "application/x-ndjson" : "text/csv";
  const sending = { body: file.slice(0, file.size, type), type, key: newKey(), deadline: UPLOAD_MS };
  return (await call("POST", `/${kind}/import?mode=${mode}`, sending)).data;
}

/**
 * The import as it progresses. After its end, with its errors.
 * @param {Kind} kind
 * @param {string} id  empty: there is none
 * @returns {{progress: Import | null, problem: import("./http.js").Problem | null}}
 */
export function useImport(kind, id) {
  const [progress, setProgress] = useState(/** @type {Import | null} */ (null));
  const [problem, setProblem] = useState(/** @type {import("./http.js").Problem | null} */ (null));
  useEffect(() => {
    setProgress(null);
    setProblem(null);
    if (!id) return undefined;
    const path = `/${kind}/imports/${id}`;
    const stop = follow(`${path}/events`, {
      onEvent: ({ data }) => {
        setProgress((before) => ({ ...before, ...data }));
        if (!isOver(data)) return;
        stop();
        api.get(path).then(setProgress, (/** @type {unknown} */ error) => setProblem(asProblem(error)));
      },
      onState: (state, ended) => ended && state === "ended" && setProblem(ended),
    });
    return stop;
  }, [kind, id]);
  return { progress, problem };
}
