/** Orders that go wrong in an interesting way, at the press of a button. */
import { html, useSignal, useState } from "../lib/html.js";
import { api } from "../lib/api.js";
import { dictionary } from "../lib/i18n.js";
import { hundredths } from "../lib/money.js";
import { PLACE_CALL } from "../lib/saga.js";
import { browserState, isAdmin, session } from "../lib/session.js";
import { Button } from "../ui/button.js";
import { Select } from "../ui/form.js";
import { Panel } from "../ui/page.js";
import { placeOrder } from "./cart.js";

/** @typedef {{product: any, place: (quantity: number, method?: string) => Promise<any>}} Tools */
/**
 * @typedef {object} Scenario
 * @property {"works" | "soldOut" | "tooDear" | "declined" | "slow" | "hangs" | "lost" | "errors" | "cancel" | "burst"} name
 * @property {(tools: Tools) => Promise<void>} run
 * @property {boolean} [needsAdmin]
 * @property {boolean} [isScripted]  needs the simulated payment provider, which production may not have
 */

/** Payments above this are refused: PAYMENT_LIMIT in the settings, in hundredths. */
const LIMIT = 1_000_000n;
const CANCEL_AFTER_MS = 1_200;
const BURST = 20;

const text = dictionary(
  {
    title: "Make it interesting",
    product: "With this product",
    works: "An order that works",
    worksText: "Stock is reserved while the payment is authorised; then both are made final.",
    soldOut: "Sell it out",
    soldOutText: "Two orders for the last unit. One wins; the other is cancelled and its payment voided.",
    tooDear: "An order over 10,000",
    tooDearText: "The payment fails, and the stock goes back to the shelf.",
    declined: "The payment is declined",
    declinedText: "The same by the provider's decision.",
    slow: "The payment is slow",
    slowText: "The provider takes five seconds. Other orders go on.",
    hangs: "The payment hangs",
    hangsText: "The provider never answers. After the deadline the order is cancelled.",
    lost: "The provider's answer is lost",
    lostText: "It has acted, but its answer is lost. It is asked again; nobody pays twice.",
    errors: "The provider fails twice",
    errorsText: "Passing errors are repeated until the call works.",
    cancel: "Cancel in flight",
    cancelText: "Cancelled while the payment is being authorised: what comes later is voided.",
    burst: "Twenty orders at once",
    burstText: "Each finds its way by itself.",
  },
  {
    title: "İlginç hale getirin",
    product: "Bu ürünle",
    works: "Sorunsuz bir sipariş",
    worksText: "Ödeme provizyonu alınırken stok ayrılır; sonra ikisi de kesinleşir.",
    soldOut: "Stoğu tüket",
    soldOutText: "Son ürün için iki sipariş. Biri kazanır; öteki iptal edilir, provizyonu kaldırılır.",
    tooDear: "10.000 üzeri sipariş",
    tooDearText: "Ödeme başarısız olur, stok rafa döner.",
    declined: "Ödeme reddedilir",
    declinedText: "Aynısı, sağlayıcının kararıyla.",
    slow: "Ödeme yavaş",
    slowText: "Sağlayıcı beş saniye sürer. Öteki siparişler beklemez.",
    hangs: "Ödeme takılır",
    hangsText: "Sağlayıcı hiç yanıt vermez. Süre dolunca sipariş iptal edilir.",
    lost: "Sağlayıcının yanıtı kaybolur",
    lostText: "İşlem yapılmış ama yanıt kaybolmuştur. Yeniden sorulur; kimse iki kez ödemez.",
    errors: "Sağlayıcı iki kez hata verir",
    errorsText: "Geçici hatalar, çağrı başarılı olana dek yinelenir.",
    cancel: "Yoldayken iptal",
    cancelText: "Provizyon alınırken iptal edilir: sonradan gelen kaldırılır.",
    burst: "Aynı anda yirmi sipariş",
    burstText: "Her biri kendi yolunu bulur.",
  },
);

/** @type {Scenario[]} */
const SCENARIOS = [
  { name: "works", run: async ({ place }) => void (await place(1)) },
  { name: "soldOut", needsAdmin: true, run: sellOut },
  { name: "tooDear", run: async ({ product, place }) => void (await place(Number(LIMIT / hundredths(product.price)) + 1)) },
  { name: "declined", isScripted: true, run: async ({ place }) => void (await place(1, "pm_declined")) },
  { name: "slow", isScripted: true, run: async ({ place }) => void (await place(1, "pm_slow_5000")) },
  { name: "hangs", isScripted: true, run: async ({ place }) => void (await place(1, "pm_hangs")) },
  { name: "lost", isScripted: true, run: async ({ place }) => void (await place(1, "pm_answer_lost")) },
  { name: "errors", isScripted: true, run: async ({ place }) => void (await place(1, "pm_error_2")) },
  { name: "cancel", isScripted: true, run: cancelInFlight },
  { name: "burst", run: async ({ place }) => void (await Promise.all(Array.from({ length: BURST }, () => place(1)))) },
];

/** Leave one unit on the shelf, then order it twice at once. @param {Tools} tools */
async function sellOut({ product, place }) {
  const stock = await api.get(`/inventory/${product.id}`);
  await api.put(`/inventory/${product.id}`, { quantity: stock.reserved + 1 });
  await Promise.all([place(1), place(1)]);
}

/** @param {Tools} tools */
async function cancelInFlight({ place }) {
  const order = await place(1, "pm_slow_4000");
  await new Promise((resolve) => setTimeout(resolve, CANCEL_AFTER_MS));
  await api.post(`/orders/${order.id}/cancel`, {});
}

/** @param {{board: import("../lib/board.js").Board, products: any[], onPlaced: (order: any) => void}} props */
export function Scenarios({ board, products, onPlaced }) {
  const admin = isAdmin(useSignal(session));
  const inProduction = useSignal(browserState).in_production;
  const affordable = products.filter((one) => hundredths(one.price) <= LIMIT);
  const [chosen, setChosen] = useState("");
  const product = affordable.find((one) => one.id === chosen) ?? affordable[0];
  const place = async (/** @type {number} */ quantity, /** @type {string | undefined} */ method) => {
    board.announce(PLACE_CALL);
    const order = await placeOrder([{ product, quantity }], method ? { payment_method: method } : {});
    onPlaced(order);
    return order;
  };
  const shown = SCENARIOS.filter((one) => (!one.needsAdmin || admin) && (!one.isScripted || !inProduction));
  return html`<${Panel} title=${text("title")}>
    <${Select}
      name="product"
      label=${text("product")}
      value=${product?.id}
      onInput=${setChosen}
      options=${affordable.map((one) => ({ value: one.id, label: one.name }))}
    />
    <ul class="scenarios">
      ${shown.map(
        (one) => html`<li key=${one.name}>
          <${Button} disabled=${!product} onClick=${() => one.run({ product, place })}>${text(one.name)}<//>
          <p class="muted small">${text(/** @type {"worksText"} */ (`${one.name}Text`))}</p>
        </li>`,
      )}
    </ul>
  <//>`;
}
