/** The page for newcomers: a shop, and beside it what the suite does with each order, as it happens. */
import { html, useEffect, useMemo, useRef, useSignal, useState } from "../lib/html.js";
import { Board } from "../lib/board.js";
import { dictionary } from "../lib/i18n.js";
import { follow } from "../lib/stream.js";
import { isSettled } from "../lib/saga.js";
import { browserState, isAdmin, session } from "../lib/session.js";
import { usePages } from "../lib/resource.js";
import { Badge } from "../ui/badge.js";
import { ButtonLink } from "../ui/button.js";
import { Page, Panel } from "../ui/page.js";
import { ServiceMap } from "../ui/service_map.js";
import { link } from "../lib/router.js";
import { DemoAccounts } from "./sign_in.js";
import { Faults } from "./live_faults.js";
import { LiveOrders, Selected, Ticker } from "./live_orders.js";
import { Scenarios } from "./live_scenarios.js";
import { Shelf } from "./live_shelf.js";

const MAX_FOLLOWED = 3;

const text = dictionary(
  {
    title: "Live demo",
    intro: "Place an order on the left and watch on the right how the services decide about it: by events alone.",
    start: "Sign in to begin",
    startText: "A customer sees the events of their own orders. An administrator sees those of everybody, changes stock and ships.",
    signIn: "Sign in",
    signUp: "Create an account",
    map: "What passes between the services",
    live: "Live",
    connecting: "Connecting",
    waiting: "Interrupted, connecting again",
    ended: "Not live",
    own: "Own orders",
  },
  {
    title: "Canlı gösteri",
    intro: "Solda sipariş verin, sağda servislerin yalnızca olaylarla nasıl karar verdiğini izleyin.",
    start: "Başlamak için giriş yapın",
    startText: "Müşteri kendi siparişlerinin olaylarını görür. Yönetici herkesinkini görür, stoğu değiştirir ve gönderir.",
    signIn: "Giriş yap",
    signUp: "Hesap aç",
    map: "Servislerin arasından geçenler",
    live: "Canlı",
    connecting: "Bağlanıyor",
    waiting: "Kesildi, yeniden bağlanıyor",
    ended: "Canlı değil",
    own: "Kendi siparişleri",
  },
);

export default function Live() {
  const current = useSignal(session);
  const board = useMemo(() => new Board(), []);
  const [selected, setSelected] = useState("");
  const { state, followOrder } = useEvents(board, isAdmin(current));
  const products = usePages("/products", { limit: 24 });
  useEffect(() => () => board.stop(), []);
  const onPlaced = (/** @type {any} */ order) => {
    board.place(order);
    followOrder(order.id);
    setSelected(order.id);
  };
  const admin = isAdmin(current);
  return html`<${Page} title=${text("title")} intro=${text("intro")}>
    <div class="live">
      <div class="stack">
        ${!current && html`<${Start} />`}
        <${Shelf} board=${board} products=${products} onPlaced=${onPlaced} />
        ${current && html`<${Scenarios} board=${board} products=${products.data ?? []} onPlaced=${onPlaced} />`}
        ${admin && html`<${Faults} />`}
      </div>
      <div class="stack">
        <${Panel} title=${text("map")} actions=${current && html`<${StreamBadge} state=${state} isAdmin=${admin} />`}>
          <${ServiceMap} subscribe=${(/** @type {any} */ listener) => board.subscribe(listener)} />
        <//>
        <div class="live-orders">
          <${LiveOrders} board=${board} selected=${selected} onSelect=${setSelected} />
          <${Selected} board=${board} id=${selected} />
        </div>
        ${admin && html`<${Ticker} board=${board} />`}
      </div>
    </div>
  <//>`;
}

/**
 * The events for the board: of the whole suite for an administrator, of the orders placed here for a customer.
 * @param {Board} board
 * @param {boolean} admin
 */
function useEvents(board, admin) {
  const [state, setState] = useState(/** @type {import("../lib/stream.js").StreamState} */ ("connecting"));
  const followed = useRef(/** @type {Map<string, () => void>} */ (new Map()));
  useEffect(() => {
    if (!admin) return undefined;
    return follow("/admin/events", { onState: setState, onEvent: ({ event, data }) => event === "message" && board.add(data) });
  }, [admin]);
  useEffect(() => () => followed.current.forEach((stop) => stop()), []);
  const leave = (/** @type {string} */ id) => {
    followed.current.get(id)?.();
    followed.current.delete(id);
  };
  const followOrder = (/** @type {string} */ id) => {
    if (admin || followed.current.has(id)) return;
    // Browsers open few connections to one host: the oldest order is left when there are too many.
    if (followed.current.size >= MAX_FOLLOWED) leave(/** @type {string} */ (followed.current.keys().next().value));
    const onEvent = (/** @type {import("../lib/stream.js").StreamEvent} */ { event, data }) => {
      if (event !== "message") return;
      board.add({ ...data, order_id: id });
      setTimeout(() => {
        const order = board.orders.get(id);
        if (order && isSettled(order) && order.status === "CANCELLED") leave(id);
      }, 1000);
    };
    followed.current.set(id, follow(`/orders/${id}/events`, { onState: setState, onEvent }));
  };
  return { state, followOrder };
}

/** @param {{state: import("../lib/stream.js").StreamState, isAdmin: boolean}} props */
function StreamBadge({ state, isAdmin: admin }) {
  if (!admin && state === "connecting") return html`<${Badge}>${text("own")}<//>`;
  return html`<${Badge} tone=${state === "live" ? "good" : "neutral"}>${text(state)}<//>`;
}

function Start() {
  const state = useSignal(browserState);
  return html`<${Panel} title=${text("start")}>
      <p class="muted">${text("startText")}</p>
      <div class="actions">
        <${ButtonLink} kind="primary" href=${link("/sign-in")}>${text("signIn")}<//>
        <${ButtonLink} href=${link("/sign-up")}>${text("signUp")}<//>
      </div>
    <//>
    ${state.demo_accounts.length > 0 && html`<${DemoAccounts} accounts=${state.demo_accounts} onSignedIn=${() => undefined} />`}`;
}
