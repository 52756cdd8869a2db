/** One order: its status as it changes, its lines, its timeline, and cancelling it. */
import { html } from "../lib/html.js";
import { api } from "../lib/api.js";
import { clock, dateTime, duration, money, shortId } from "../lib/format.js";
import { dictionary } from "../lib/i18n.js";
import { useLiveOrder } from "../lib/order.js";
import { Badge, StatusBadge, statusText } from "../ui/badge.js";
import { Button } from "../ui/button.js";
import { confirm } from "../ui/dialog.js";
import { Facts, Page, Panel } from "../ui/page.js";
import { useCommands } from "../ui/palette.js";
import { Loaded, Loading } from "../ui/state.js";
import { Table } from "../ui/table.js";
import { toast } from "../ui/toast.js";

const text = dictionary(
  {
    title: "Order {id}",
    status: "Status",
    stock: "Stock",
    payment: "Payment",
    total: "Total",
    placed: "Placed",
    lines: "Items",
    sku: "SKU",
    price: "Price",
    quantity: "Quantity",
    sum: "Sum",
    timeline: "Timeline",
    live: "Live",
    connecting: "Connecting",
    waiting: "Interrupted, connecting again",
    ended: "Not live",
    cancel: "Cancel the order",
    cancelText: "What was reserved goes back to the shelf, and the payment is voided or refunded. This cannot be undone.",
    cancelled: "The order is being cancelled",
  },
  {
    title: "Sipariş {id}",
    status: "Durum",
    stock: "Stok",
    payment: "Ödeme",
    total: "Toplam",
    placed: "Verildi",
    lines: "Ürünler",
    sku: "SKU",
    price: "Fiyat",
    quantity: "Adet",
    sum: "Tutar",
    timeline: "Zaman çizelgesi",
    live: "Canlı",
    connecting: "Bağlanıyor",
    waiting: "Kesildi, yeniden bağlanıyor",
    ended: "Canlı değil",
    cancel: "Siparişi iptal et",
    cancelText: "Ayrılan ürünler rafa döner, ödeme iptal ya da iade edilir. Bu geri alınamaz.",
    cancelled: "Sipariş iptal ediliyor",
  },
);

const CANCELLABLE = new Set(["CREATED", "CONFIRMED"]);

/** @param {{id: string}} props */
export default function Order({ id }) {
  const { order, timeline, state } = useLiveOrder(id);
  const canCancel = CANCELLABLE.has(order.data?.status);
  const cancel = () => cancelOrder(id);
  useCommands(canCancel ? [{ name: text("cancel"), run: cancel }] : [], [canCancel, id]);
  return html`<${Page}
    title=${text("title", { id: shortId(id) })}
    actions=${html`<${Button} kind="danger" disabled=${!canCancel} onClick=${cancel}>${text("cancel")}<//>`}
  >
    <${Loaded} resource=${order} lines=${8}>
      ${(/** @type {any} */ shown) => html`<div class="two-columns">
        <div class="stack">
          <${Summary} order=${shown} />
          <${Lines} order=${shown} />
        </div>
        <${Panel} title=${text("timeline")} actions=${html`<${Badge} tone=${state === "live" ? "good" : "neutral"}>${text(state)}<//>`}>
          <${Timeline} entries=${timeline} />
        <//>
      </div>`}
    <//>
  <//>`;
}

/**
 * Ask, then cancel an order. True if it was cancelled. Throws Problem.
 * @param {string} id
 */
export async function cancelOrder(id) {
  const isSure = await confirm({ title: text("cancel"), body: text("cancelText"), action: text("cancel"), isDestructive: true });
  if (!isSure) return false;
  await api.post(`/orders/${id}/cancel`, {});
  toast(text("cancelled"));
  return true;
}

/** @param {{order: any}} props */
function Summary({ order }) {
  return html`<div class="panel">
    <${Facts}
      items=${[
        [text("status"), html`<${StatusBadge} status=${order.status} reason=${order.cancel_reason} />`],
        [text("stock"), html`<${StatusBadge} status=${order.stock_status} />`],
        [text("payment"), html`<${StatusBadge} status=${order.payment_status} />`],
        [text("total"), money(order.total_amount, order.currency)],
        [text("placed"), dateTime(order.created_at)],
      ]}
    />
  </div>`;
}

/** @param {{order: any}} props */
function Lines({ order }) {
  return html`<${Table}
    caption=${text("lines")}
    rows=${order.items}
    rowKey=${(/** @type {any} */ line) => line.product_id}
    columns=${[
      { label: text("sku"), value: (/** @type {any} */ line) => line.product_sku },
      { label: text("price"), align: "end", value: (/** @type {any} */ line) => money(line.price_snapshot, order.currency) },
      { label: text("quantity"), align: "end", value: (/** @type {any} */ line) => line.quantity },
      { label: text("sum"), align: "end", value: (/** @type {any} */ line) => money(line.line_total, order.currency) },
    ]}
  />`;
}

/** The events of an order, oldest first, with the time since it was placed. @param {{entries: import("../lib/order.js").TimelineEntry[]}} props */
export function Timeline({ entries }) {
  if (!entries.length) return html`<${Loading} lines=${5} />`;
  const began = new Date(entries[0].at).getTime();
  return html`<ol class="timeline">
    ${entries.map(
      (entry, index) => html`<li key=${entry.event_id} class=${entry.service}>
        <span class="event">${entry.event}</span>
        <span class="muted small">${entry.service}</span>
        <time class="small" datetime=${entry.at} title=${entry.at}>
          ${index ? `+${duration(new Date(entry.at).getTime() - began)}` : clock(entry.at)}
        </time>
        ${entry.data.reason && html`<span class="reason small">${statusText(entry.data.reason)}${entry.data.note ? `: ${entry.data.note}` : ""}</span>`}
      </li>`,
    )}
  </ol>`;
}
