/** What a view shows while data loads, if there is none, if it is outdated, and if it cannot be had. */
import { html, useSignal } from "../lib/html.js";
import { isOnline } from "../lib/http.js";
import { dictionary } from "../lib/i18n.js";
import { dateTime } from "../lib/format.js";
import { problemText } from "../lib/problems.js";
import { Button } from "./button.js";

/** @typedef {import("../lib/html.js").Children} Children */

const text = dictionary(
  {
    loading: "Loading",
    retry: "Try again",
    stale: "Not up to date: this is from {at}. {reason}",
    request: "Request {id}",
    offline: "The gateway cannot be reached. The page shows what it has, and tries again by itself.",
  },
  {
    loading: "Yükleniyor",
    retry: "Yeniden dene",
    stale: "Güncel değil: {at} tarihli. {reason}",
    request: "İstek {id}",
    offline: "Geçide ulaşılamıyor. Sayfa elindekini gösterir ve kendiliğinden yeniden dener.",
  },
);

/** Grey lines in the size of what is coming, so that nothing moves. @param {{lines?: number}} props */
export function Loading({ lines = 4 }) {
  return html`<div class="skeleton" role="status" aria-label=${text("loading")}>
    ${Array.from({ length: lines }, (_, index) => html`<span key=${index}></span>`)}
  </div>`;
}

/** @param {{title: string, children?: Children}} props */
export function Empty({ title, children }) {
  return html`<div class="empty"><p class="empty-title">${title}</p>${children}</div>`;
}

/** @param {{problem: import("../lib/http.js").Problem, onRetry?: () => unknown}} props */
export function ProblemBox({ problem, onRetry }) {
  return html`<div class="problem" role="alert">
    <p>${problemText(problem)}</p>
    ${problem.requestId && html`<p class="muted small">${problem.code} · ${text("request", { id: problem.requestId })}</p>`}
    ${onRetry && html`<${Button} onClick=${onRetry}>${text("retry")}<//>`}
  </div>`;
}

/** A line above data that could not be renewed. @param {{problem: import("../lib/http.js").Problem, at: string}} props */
export function Stale({ problem, at }) {
  return html`<p class="stale" role="status">${text("stale", { at: dateTime(at), reason: problemText(problem) })}</p>`;
}

/** A line at the top of the page while the gateway cannot be reached. */
export function OfflineBanner() {
  const online = useSignal(isOnline);
  return html`<div class="banner" role="status">${!online && html`<p class="offline">${text("offline")}</p>`}</div>`;
}

/**
 * Shows a resource in its present state; `children` is a function of the data.
 * @template T
 * @param {{resource: import("../lib/resource.js").Resource<T>, children: (data: T) => Children, lines?: number, empty?: Children}} props
 *   `empty`: shown instead of an empty list
 */
export function Loaded({ resource, children, lines, empty }) {
  const { data, problem, loadedAt, reload } = resource;
  if (data === undefined) {
    return problem ? html`<${ProblemBox} problem=${problem} onRetry=${reload} />` : html`<${Loading} lines=${lines} />`;
  }
  const isEmpty = empty !== undefined && Array.isArray(data) && data.length === 0;
  return html`${problem && html`<${Stale} problem=${problem} at=${loadedAt} />`}${isEmpty ? empty : children(data)}`;
}
