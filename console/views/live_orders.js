/** The orders of the live page: a list, the chosen one with its timeline, and the events as they pass. */
import { html, useEffect, useRef, useSignal, useState } from "../lib/html.js";
import { api } from "../lib/api.js";
import { clock, money, number, shortId } from "../lib/format.js";
import { dictionary } from "../lib/i18n.js";
import { link } from "../lib/router.js";
import { isAdmin, session } from "../lib/session.js";
import { kindOf } from "../lib/saga.js";
import { StatusBadge } from "../ui/badge.js";
import { Button, ButtonLink } from "../ui/button.js";
import { Facts, Panel } from "../ui/page.js";
import { cancelOrder, Timeline } from "./order.js";

/** @typedef {import("../lib/board.js").Board} Board */

const SHOWN_ORDERS = 8;
const SHOWN_EVENTS = 10;

const text = dictionary(
  {
    orders: "Orders",
    none: "The orders that you place appear here.",
    chosen: "The chosen order",
    title: "Order {id}",
    choose: "Place or choose an order to see its timeline.",
    status: "Status",
    stock: "Stock",
    payment: "Payment",
    open: "Open",
    cancel: "Cancel",
    ship: "Ship",
    deliver: "Deliver",
    events: "Events as they pass",
    rate: { one: "{count} event a second", other: "{count} events a second" },
    pause: "Pause",
    goOn: "Go on",
  },
  {
    orders: "Siparişler",
    none: "Verdiğiniz siparişler burada görünür.",
    chosen: "Seçilen sipariş",
    title: "Sipariş {id}",
    choose: "Zaman çizelgesini görmek için sipariş verin ya da seçin.",
    status: "Durum",
    stock: "Stok",
    payment: "Ödeme",
    open: "Aç",
    cancel: "İptal et",
    ship: "Gönder",
    deliver: "Teslim et",
    events: "Geçen olaylar",
    rate: "Saniyede {count} olay",
    pause: "Duraklat",
    goOn: "Sürdür",
  },
);

/** @param {{board: Board, selected: string, onSelect: (id: string) => void}} props */
export function LiveOrders({ board, selected, onSelect }) {
  useSignal(board.version);
  const orders = board.newest(SHOWN_ORDERS);
  return html`<${Panel} title=${text("orders")} class="order-list">
    ${!orders.length && html`<p class="muted">${text("none")}</p>`}
    <ul>
      ${orders.map(
        (order) => html`<li key=${order.id}>
          <button type="button" aria-pressed=${String(order.id === selected)} onClick=${() => onSelect(order.id)}>
            <code>${shortId(order.id)}</code>
            <span class="order-total">${order.total && money(order.total, order.currency)}</span>
            <${StatusBadge} status=${order.status} reason=${order.cancel_reason} />
          </button>
        </li>`,
      )}
    </ul>
  <//>`;
}

/** @param {{board: Board, id: string}} props */
export function Selected({ board, id }) {
  useSignal(board.version);
  const order = board.orders.get(id);
  if (!order) return html`<${Panel} title=${text("chosen")} class="chosen-order"><p class="muted">${text("choose")}</p><//>`;
  return html`<${Panel} title=${text("title", { id: shortId(id) })} class="chosen-order" actions=${html`<${Actions} order=${order} />`}>
    <${Facts}
      items=${[
        [text("status"), html`<${StatusBadge} status=${order.status} reason=${order.cancel_reason} />`],
        [text("stock"), html`<${StatusBadge} status=${order.stock_status} />`],
        [text("payment"), html`<${StatusBadge} status=${order.payment_status} />`],
      ]}
    />
    <${Timeline} entries=${order.entries} />
  <//>`;
}

/** @param {{order: import("../lib/board.js").BoardOrder}} props */
function Actions({ order }) {
  const admin = isAdmin(useSignal(session));
  const post = (/** @type {string} */ action) => () => api.post(`/orders/${order.id}/${action}`);
  const { status } = order;
  return html`<${ButtonLink} href=${link(`/orders/${order.id}`)}>${text("open")}<//>
    ${admin && status === "CONFIRMED" && html`<${Button} onClick=${post("ship")}>${text("ship")}<//>`}
    ${admin && status === "SHIPPED" && html`<${Button} onClick=${post("deliver")}>${text("deliver")}<//>`}
    ${(status === "CREATED" || status === "CONFIRMED") &&
    html`<${Button} kind="danger" onClick=${() => cancelOrder(order.id)}>${text("cancel")}<//>`}`;
}

/** The newest events of the suite. Its rows have a fixed height, so nothing moves. @param {{board: Board}} props */
export function Ticker({ board }) {
  const [paused, setPaused] = useState(/** @type {import("../lib/saga.js").SagaEvent[] | null} */ (null));
  useSignal(board.version);
  const events = (paused ?? board.events).slice(-SHOWN_EVENTS).reverse();
  const toggle = () => setPaused(paused ? null : board.events);
  const actions = html`<${Rate} board=${board} />
    <${Button} pressed=${paused !== null} onClick=${toggle}>${text(paused ? "goOn" : "pause")}<//>`;
  return html`<${Panel} title=${text("events")} actions=${actions}>
    <ol class="ticker">
      ${events.map(
        (event) => html`<li key=${event.event_id}>
          <time class="muted">${clock(event.at)}</time>
          <span class=${kindOf(event.event)}>${event.event}</span>
          <span class="muted">${event.service}</span>
          <code>${event.order_id ? shortId(event.order_id) : ""}</code>
        </li>`,
      )}
    </ol>
  <//>`;
}

/** @param {{board: Board}} props */
function Rate({ board }) {
  const [rate, setRate] = useState(0);
  const before = useRef(board.count);
  useEffect(() => {
    const timer = setInterval(() => {
      setRate(board.count - before.current);
      before.current = board.count;
    }, 1000);
    return () => clearInterval(timer);
  }, []);
  return html`<span class="muted small">${text("rate", { count: number(rate) })}</span>`;
}
