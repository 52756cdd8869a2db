/** The customer's own orders, newest first. Their status changes as notifications arrive. */
import { html, useEffect, useSignal } from "../lib/html.js";
import { dateTime, money, shortId } from "../lib/format.js";
import { dictionary } from "../lib/i18n.js";
import { arrived } from "../lib/inbox.js";
import { usePages } from "../lib/resource.js";
import { link, navigate } from "../lib/router.js";
import { afterEvent } from "../lib/saga.js";
import { isAdmin, session } from "../lib/session.js";
import { statusText, StatusBadge } from "../ui/badge.js";
import { Button, ButtonLink } from "../ui/button.js";
import { Select } from "../ui/form.js";
import { Page } from "../ui/page.js";
import { Empty, Loaded } from "../ui/state.js";
import { More, Table } from "../ui/table.js";
import { cancelOrder } from "./order.js";

const STATUSES = ["CREATED", "CONFIRMED", "SHIPPED", "DELIVERED", "CANCELLED"];

const text = dictionary(
  {
    title: "My orders",
    status: "Status",
    all: "All",
    order: "Order",
    placed: "Placed",
    items: "Items",
    count: { one: "{count} unit", other: "{count} units" },
    total: "Total",
    cancel: "Cancel",
    none: "No orders here yet",
    shop: "To the products",
  },
  {
    title: "Siparişlerim",
    status: "Durum",
    all: "Tümü",
    order: "Sipariş",
    placed: "Verildi",
    items: "Ürünler",
    count: "{count} adet",
    total: "Toplam",
    cancel: "İptal et",
    none: "Burada henüz sipariş yok",
    shop: "Ürünlere git",
  },
);

/** @param {{query: Record<string, string>}} props */
export default function Orders({ query }) {
  const current = useSignal(session);
  // An administrator would see the orders of everybody.
  const owner = isAdmin(current) ? current?.user.id : undefined;
  const orders = usePages("/orders", { status: query.status, user_id: owner, limit: 20 });
  const news = useSignal(arrived);
  useEffect(() => {
    if (!news?.order_id) return;
    const event = { event: news.kind, data: {} };
    if (orders.data?.some((one) => one.id === news.order_id)) {
      orders.change((items) => items.map((one) => (one.id === news.order_id ? afterEvent(one, event) : one)));
    } else {
      void orders.reload(); // it is new, or was placed in another window
    }
  }, [news]);
  const choose = (/** @type {string} */ status) => navigate("/orders", { status }, { replace: true });
  const options = [{ value: "", label: text("all") }, ...STATUSES.map((value) => ({ value, label: statusText(value) }))];
  return html`<${Page} title=${text("title")}>
    <div class="filters"><${Select} name="status" label=${text("status")} value=${query.status ?? ""} options=${options} onInput=${choose} /></div>
    <${Loaded} resource=${orders} lines=${8} empty=${html`<${Empty} title=${text("none")}><${ButtonLink} href=${link("/products")}>${text("shop")}<//><//>`}>
      ${(/** @type {any[]} */ rows) => html`<${List} rows=${rows} />`}
    <//>
    <${More} pages=${orders} />
  <//>`;
}

/** @param {{rows: any[]}} props */
function List({ rows }) {
  const units = (/** @type {any} */ order) => order.items.reduce((/** @type {number} */ sum, /** @type {any} */ item) => sum + item.quantity, 0);
  return html`<${Table}
    caption=${text("title")}
    rows=${rows}
    rowKey=${(/** @type {any} */ order) => order.id}
    columns=${[
      { label: text("order"), value: (/** @type {any} */ order) => html`<a href=${link(`/orders/${order.id}`)}><code>${shortId(order.id)}</code></a>` },
      { label: text("placed"), value: (/** @type {any} */ order) => dateTime(order.created_at) },
      { label: text("items"), value: (/** @type {any} */ order) => text("count", { count: units(order) }) },
      { label: text("status"), value: (/** @type {any} */ order) => html`<${StatusBadge} status=${order.status} reason=${order.cancel_reason} />` },
      { label: text("total"), align: "end", value: (/** @type {any} */ order) => money(order.total_amount, order.currency) },
    ]}
    actions=${(/** @type {any} */ order) =>
      (order.status === "CREATED" || order.status === "CONFIRMED") &&
      html`<${Button} kind="danger" onClick=${() => cancelOrder(order.id)}>
        ${text("cancel")}<span class="visually-hidden"> ${shortId(order.id)}</span>
      <//>`}
  />`;
}
