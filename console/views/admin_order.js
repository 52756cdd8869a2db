/** One order for administrators: its saga live, its customer and payment, and what can be done with it. */
import {
  api, Badge, Button, dateTime, dictionary, Facts, html, link, Loaded, money, Page, Panel, shortId,
  StatusBadge, Table, toast, useCommands, usePages, useResource, useState, word,
} from "../kit.js";
import { useLiveOrder } from "../lib/order.js";
import { ACTIONS, ActionDialog, actionText, isPossible, perform } from "./admin_order_actions.js";
import { Timeline } from "./order.js";

const text = dictionary(
  {
    title: "Order {id}",
    id: "Id",
    stock: "Stock",
    address: "Delivery address",
    carrier: "Carrier",
    tracking: "Tracking number",
    lines: "Items",
    sku: "SKU",
    price: "Price",
    quantity: "Quantity",
    timeline: "Timeline",
    live: "Live",
    notLive: "Not live",
    noPayment: "There is no payment yet.",
    refunded: "Refunded",
    attempts: "Attempts and refund",
    deadLetters: { one: "{count} message about this order could not be handled", other: "{count} messages about this order could not be handled" },
    openLetters: "To its dead letters",
  },
  {
    title: "Sipariş {id}",
    id: "Kimlik",
    stock: "Stok",
    address: "Teslimat adresi",
    carrier: "Kargo firması",
    tracking: "Takip numarası",
    lines: "Ürünler",
    sku: "SKU",
    price: "Fiyat",
    quantity: "Adet",
    timeline: "Zaman çizelgesi",
    live: "Canlı",
    notLive: "Canlı değil",
    noPayment: "Henüz ödeme yok.",
    refunded: "İade edilen",
    attempts: "Denemeler ve iade",
    deadLetters: "Bu siparişle ilgili {count} mesaj işlenemedi",
    openLetters: "Dead letter'larına git",
  },
);

const RENEWED_MS = 5_000;

/** @param {{id: string}} props */
export default function AdminOrder({ id }) {
  const { order, timeline, state } = useLiveOrder(id);
  const [action, setAction] = useState(/** @type {import("./admin_order_actions.js").Action | ""} */ (""));
  const status = order.data?.status ?? "";
  const possible = ACTIONS.filter((one) => isPossible(one, status));
  useCommands(possible.map((one) => ({ name: actionText(one), run: () => setAction(one) })), [status]);
  const run = async (/** @type {Record<string, string>} */ values) => {
    if (!action) return;
    toast(await perform(action, id, values));
    setAction("");
    await order.reload();
  };
  const buttons = ACTIONS.map(
    (one) => html`<${Button} key=${one} kind=${one === "cancel" ? "danger" : "plain"} disabled=${!possible.includes(one)} onClick=${() => setAction(one)}>${actionText(one)}<//>`,
  );
  return html`<${Page} title=${text("title", { id: shortId(id) })} actions=${buttons}>
    <${Loaded} resource=${order} lines=${10}>
      ${(/** @type {any} */ shown) => html`<div class="two-columns">
        <div class="stack">
          <${Summary} order=${shown} />
          <${Table} caption=${text("lines")} rows=${shown.items} rowKey=${(/** @type {any} */ line) => line.product_id} columns=${columns(shown.currency)} />
          <${PaymentPanel} id=${id} status=${shown.payment_status} />
          <${DeadLetters} id=${id} />
        </div>
        <${Panel} title=${text("timeline")} actions=${html`<${Badge} tone=${state === "live" ? "good" : "neutral"}>${text(state === "live" ? "live" : "notLive")}<//>`}>
          <${Timeline} entries=${timeline} />
        <//>
      </div>`}
    <//>
    ${action && html`<${ActionDialog} action=${action} count=${1} onRun=${run} onClose=${() => setAction("")} />`}
  <//>`;
}

/** @param {string} currency */
const columns = (currency) =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    { label: text("sku"), value: (line) => html`<a href=${link(`/admin/stock/${line.product_id}`)}>${line.product_sku}</a>` },
    { label: text("price"), align: "end", value: (line) => money(line.price_snapshot, currency) },
    { label: text("quantity"), align: "end", value: (line) => line.quantity },
    { label: word("total"), align: "end", value: (line) => money(line.line_total, currency) },
  ]);

/** @param {{order: any}} props */
function Summary({ order }) {
  const address = order.shipping_address;
  const place = address && [address.name, address.line1, address.line2, address.postal_code, address.city, address.country].filter(Boolean).join(", ");
  return html`<div class="panel">
    <${Facts}
      items=${[
        [word("status"), html`<${StatusBadge} status=${order.status} reason=${order.cancel_reason} />`],
        [text("stock"), html`<${StatusBadge} status=${order.stock_status} />`],
        [word("payment"), html`<${StatusBadge} status=${order.payment_status} />`],
        [word("total"), money(order.total_amount, order.currency)],
        [word("created"), dateTime(order.created_at)],
        [word("customer"), html`<a class="id" href=${link("/admin/orders", { user: order.user_id })}>${shortId(order.user_id)}</a>`],
        [text("carrier"), order.carrier ?? "–"],
        [text("tracking"), order.tracking_number ?? "–"],
        ...(place ? [[text("address"), place]] : []),
        [text("id"), html`<span class="id">${order.id}</span>`],
      ]}
    />
  </div>`;
}

/** The payment is read again whenever the order says that it has changed. @param {{id: string, status: string}} props */
function PaymentPanel({ id, status }) {
  const payments = useResource((signal) => api.get("/payments", { order_id: id }, { signal }), [id, status]);
  return html`<${Panel} title=${word("payment")}>
    <${Loaded} resource=${payments} lines=${2}>
      ${(/** @type {any} */ { items: [payment] }) =>
        payment
          ? html`<${Facts}
                items=${[
                  [word("status"), html`<${StatusBadge} status=${payment.status} />`],
                  [word("amount"), money(payment.amount, payment.currency)],
                  [text("refunded"), money(payment.refunded_amount, payment.currency)],
                ]}
              />
              <p><a href=${link(`/admin/payments/${payment.id}`)}>${text("attempts")}</a></p>`
          : html`<p class="muted">${text("noPayment")}</p>`}
    <//>
  <//>`;
}

/** Why an order may be stuck. @param {{id: string}} props */
function DeadLetters({ id }) {
  const letters = usePages("/admin/dead-letters", { correlation_id: id, limit: 100 }, { every: RENEWED_MS });
  const count = letters.data?.length;
  if (!count) return null;
  return html`<div class="problem" role="alert">
    <p>${text("deadLetters", { count })}</p>
    <p><a href=${link("/admin/dead-letters", { view: "all", order: id })}>${text("openLetters")}</a></p>
  </div>`;
}
