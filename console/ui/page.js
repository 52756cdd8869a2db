/** The frame of a view: its heading, its actions, and parts with headings of their own. */
import { classes, html, useId } from "../lib/html.js";

/** @typedef {import("../lib/html.js").Children} Children */

/** @param {{title: string, children?: Children, actions?: Children, intro?: Children}} props */
export function Page({ title, children, actions, intro }) {
  return html`<header class="page-header">
      <div>
        <h1 tabindex="-1">${title}</h1>
        ${intro && html`<p class="muted">${intro}</p>`}
      </div>
      ${actions && html`<div class="actions">${actions}</div>`}
    </header>
    ${children}`;
}

/** @param {{title: string, children?: Children, actions?: Children, class?: string}} props */
export function Panel({ title, children, actions, class: name }) {
  const id = useId();
  return html`<section class=${classes("panel", name)} aria-labelledby=${id}>
    <header class="panel-header">
      <h2 id=${id}>${title}</h2>
      ${actions && html`<div class="actions">${actions}</div>`}
    </header>
    ${children}
  </section>`;
}

/** Names and values, such as the facts of an order. @param {{items: [string, Children][]}} props */
export function Facts({ items }) {
  return html`<dl class="facts">
    ${items.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}
