/** Loading data for a view: first load, reload, live refresh, and what is shown while it fails. */
import { useCallback, useEffect, useRef, useSignal, useState } from "./html.js";
import { asProblem, returns } from "./http.js";
import { api } from "./api.js";

/** @typedef {import("./http.js").Problem} Problem */
/**
 * @template T
 * @typedef {object} Resource
 * @property {T | undefined} data  what was loaded last, also while a reload runs or has failed
 * @property {Problem | undefined} problem  why the last load failed
 * @property {boolean} isLoading
 * @property {string} loadedAt  RFC 3339, empty before the first load
 * @property {() => Promise<void>} reload
 * @property {(change: (data: T) => T) => void} change  replaces the shown data, until the next load
 */

/**
 * Load data when the component appears, when `dependencies` change, and when the gateway is back after an outage.
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @param {readonly unknown[]} dependencies
 * @param {{every?: number}} [options]  `every`: milliseconds between reloads while the page is visible
 * @returns {Resource<T>}
 */
export function useResource(load, dependencies, { every = 0 } = {}) {
  const [state, setState] = useState(
    /** @type {{data?: T, problem?: Problem, isLoading: boolean, loadedAt: string}} */ ({ isLoading: true, loadedAt: "" }),
  );
  const outages = useSignal(returns);
  const running = useRef(/** @type {AbortController | null} */ (null));
  const latest = useRef(load);
  latest.current = load;

  const reload = useCallback(async () => {
    running.current?.abort();
    const mine = new AbortController();
    running.current = mine;
    setState((before) => ({ ...before, isLoading: true }));
    try {
      const data = await latest.current(mine.signal);
      if (!mine.signal.aborted) setState({ data, isLoading: false, loadedAt: new Date().toISOString() });
    } catch (error) {
      if (mine.signal.aborted) return;
      const problem = asProblem(error);
      setState((before) => ({ ...before, problem, isLoading: false }));
    }
  }, []);

  const change = useCallback((/** @type {(data: T) => T} */ edit) => {
    setState((before) => (before.data === undefined ? before : { ...before, data: edit(before.data) }));
  }, []);

  useEffect(() => {
    setState({ isLoading: true, loadedAt: "" });
    void reload();
    return () => running.current?.abort();
  }, dependencies);
  const isFirst = useRef(true);
  useEffect(() => {
    if (!isFirst.current) void reload();
    isFirst.current = false;
  }, [outages]);
  useEffect(() => {
    if (!every) return undefined;
    const timer = setInterval(() => document.hidden || void reload(), every);
    return () => clearInterval(timer);
  }, [every]);

  return { data: state.data, problem: state.problem, isLoading: state.isLoading, loadedAt: state.loadedAt, reload, change };
}

/**
 * @typedef {object} Pages
 * @property {any[]} items  of all pages that were loaded
 * @property {boolean} hasMore
 * @property {() => Promise<void>} loadMore
 */

/**
 * A list of the API, page by page: `resource.data` are the items so far.
 * @param {string} path
 * @param {import("./api.js").Query} query  a change of it begins a new list
 * @param {{every?: number}} [options]  reloads the first page; the pages after it are dropped
 * @returns {Resource<any[]> & {hasMore: boolean, loadMore: () => Promise<void>}}
 */
export function usePages(path, query, options) {
  const cursor = useRef(/** @type {string | null} */ (null));
  const key = JSON.stringify([path, query]);
  const resource = useResource(
    async (signal) => {
      const page = await api.get(path, query, { signal });
      cursor.current = page.next_cursor;
      return /** @type {any[]} */ (page.items);
    },
    [key],
    options,
  );
  const loadMore = async () => {
    const page = await api.get(path, { ...query, cursor: cursor.current });
    cursor.current = page.next_cursor;
    resource.change((items) => [...items, ...page.items]);
  };
  return { ...resource, hasMore: cursor.current !== null, loadMore };
}
