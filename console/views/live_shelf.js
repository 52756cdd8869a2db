/** The shelf of the live page: products with their stock, and the order of what was chosen. */
import { html, useEffect, useRef, useSignal } from "../lib/html.js";
import { api } from "../lib/api.js";
import { cart, cartCount, cartTotal, emptyCart } from "../lib/cart.js";
import { money, number } from "../lib/format.js";
import { dictionary } from "../lib/i18n.js";
import { useResource } from "../lib/resource.js";
import { link } from "../lib/router.js";
import { PLACE_CALL } from "../lib/saga.js";
import { isAdmin, session } from "../lib/session.js";
import { Button, ButtonLink } from "../ui/button.js";
import { Panel } from "../ui/page.js";
import { Loaded } from "../ui/state.js";
import { toast } from "../ui/toast.js";
import { placeOrder } from "./cart.js";
import { Quantity } from "./products.js";

const RELOAD_PAUSE_MS = 400;
const ADDED = 10;

const text = dictionary(
  {
    title: "Shop",
    order: "Place the order",
    signIn: "Sign in to order",
    nothing: "Choose something from the shelf.",
    chosen: { one: "{count} unit, {total}", other: "{count} units, {total}" },
    available: "{count} available",
    reserved: "{count} reserved",
    none: "No stock",
    add: "+{count} stock",
    added: "The stock of {name} has grown by {count}",
    reason: "Added in the live demo",
  },
  {
    title: "Mağaza",
    order: "Sipariş ver",
    signIn: "Sipariş için giriş yapın",
    nothing: "Raftan bir şey seçin.",
    chosen: "{count} adet, {total}",
    available: "{count} satılabilir",
    reserved: "{count} ayrılmış",
    none: "Stok yok",
    add: "+{count} stok",
    added: "{name} stoğu {count} arttı",
    reason: "Canlı gösteride eklendi",
  },
);

/**
 * @param {{board: import("../lib/board.js").Board, products: import("../lib/resource.js").Resource<any[]>, onPlaced: (order: any) => void}} props
 */
export function Shelf({ board, products, onPlaced }) {
  const admin = isAdmin(useSignal(session));
  const stock = useStock(board, admin);
  return html`<${Panel} title=${text("title")}>
    <${Loaded} resource=${products} lines=${10}>
      ${(/** @type {any[]} */ items) => html`<ul class="shelf">
        ${items.map(
          (product) => html`<li key=${product.id}>
            <span class="shelf-name">${product.name}</span>
            <span class="shelf-price">${money(product.price, product.currency)}</span>
            ${admin && html`<${Stock} product=${product} row=${stock.data?.get(product.id)} onChange=${stock.reload} />`}
            <${Quantity} product=${product} />
          </li>`,
        )}
      </ul>`}
    <//>
    <${Order} board=${board} onPlaced=${onPlaced} />
  <//>`;
}

/**
 * The stock of all products by their ids, read again after events of the inventory service.
 * @param {import("../lib/board.js").Board} board
 * @param {boolean} admin
 */
function useStock(board, admin) {
  const stock = useResource(
    async (signal) => {
      const rows = admin ? (await api.get("/inventory", { limit: 100 }, { signal })).items : [];
      return new Map(rows.map((/** @type {any} */ row) => [row.product_id, row]));
    },
    [admin],
  );
  const timer = useRef(0);
  useEffect(() => {
    if (!admin) return undefined;
    const end = board.subscribe((events) => {
      if (timer.current || !events.some((event) => event.service === "inventory")) return;
      timer.current = window.setTimeout(() => {
        timer.current = 0;
        void stock.reload();
      }, RELOAD_PAUSE_MS);
    });
    return () => {
      end();
      clearTimeout(timer.current);
    };
  }, [admin]);
  return stock;
}

/** @param {{product: any, row: any, onChange: () => Promise<void>}} props */
function Stock({ product, row, onChange }) {
  const add = async () => {
    const path = `/inventory/${product.id}`;
    if (row) await api.post(`${path}/adjustments`, { delta: ADDED, reason: text("reason") });
    else await api.post("/inventory", { product_id: product.id, quantity: ADDED });
    toast(text("added", { name: product.name, count: ADDED }));
    await onChange();
  };
  const available = row ? text("available", { count: number(row.available) }) : text("none");
  return html`<span class="shelf-stock small">
    <span class=${row?.available ? "muted" : "empty-stock"}>${available}</span>
    ${row?.reserved > 0 && html`<span class="muted">, ${text("reserved", { count: number(row.reserved) })}</span>`}
    <${Button} kind="quiet" class="tiny" onClick=${add}>
      ${text("add", { count: ADDED })}<span class="visually-hidden">: ${product.name}</span>
    <//>
  </span>`;
}

/** @param {{board: import("../lib/board.js").Board, onPlaced: (order: any) => void}} props */
function Order({ board, onPlaced }) {
  const lines = useSignal(cart);
  const count = useSignal(cartCount);
  const total = useSignal(cartTotal);
  const current = useSignal(session);
  const place = async () => {
    board.announce(PLACE_CALL);
    const order = await placeOrder(lines);
    emptyCart();
    onPlaced(order);
  };
  return html`<div class="line shelf-order">
    <span>${count ? text("chosen", { count, total: money(total) }) : html`<span class="muted">${text("nothing")}</span>`}</span>
    ${current
      ? html`<${Button} kind="primary" disabled=${!count} onClick=${place}>${text("order")}<//>`
      : html`<${ButtonLink} href=${link("/sign-in")}>${text("signIn")}<//>`}
  </div>`;
}
