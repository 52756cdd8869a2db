/** The address of a view is the part after `#`, such as `#/orders?status=CREATED`: the page itself is always `/`. */
import { signal } from "./html.js";

/** @typedef {{path: string, query: Record<string, string>}} Place */

/** @returns {Place} */
function current() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?", 2);
  return { path: path || "/", query: Object.fromEntries(new URLSearchParams(query)) };
}

/** @type {import("@preact/signals-core").Signal<Place>} */
export const place = signal(current());
addEventListener("hashchange", () => {
  place.value = current();
});

/**
 * The address of a view, for `href`. Empty values of the query are left out.
 * @param {string} path
 * @param {Record<string, string | number | boolean | null | undefined>} [query]
 */
export function link(path, query = {}) {
  const stated = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(stated.map(([name, value]) => [name, String(value)])).toString();
  return `#${path}${text ? `?${text}` : ""}`;
}

/**
 * Go to a view.
 * @param {string} path
 * @param {Record<string, string | number | boolean | null | undefined>} [query]
 * @param {{replace?: boolean}} [options]  `replace`: without an entry in the browser's history, as for a filter
 */
export function navigate(path, query = {}, { replace = false } = {}) {
  const target = link(path, query);
  if (target === location.hash) return;
  if (replace) {
    history.replaceState(null, "", target);
    place.value = current();
  } else {
    location.hash = target;
  }
}

/**
 * The parameters of a path, null if it is not of this pattern: `match("/orders/:id", "/orders/7")` is `{id: "7"}`.
 * @param {string} pattern
 * @param {string} path
 * @returns {Record<string, string> | null}
 */
export function match(pattern, path) {
  const wanted = pattern.split("/");
  const found = path.split("/");
  if (wanted.length !== found.length) return null;
  /** @type {Record<string, string>} */
  const parameters = {};
  for (const [index, part] of wanted.entries()) {
    if (part.startsWith(":")) parameters[part.slice(1)] = decodeURIComponent(found[index]);
    else if (part !== found[index]) return null;
  }
  return parameters;
}
