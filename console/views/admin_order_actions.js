/** What an administrator does with orders: ship, deliver, cancel; for one or for several. */
import { api, Button, Dialog, dictionary, Field, Form, html, word } from "../kit.js";

/** @typedef {"ship" | "deliver" | "cancel"} Action */

const text = dictionary(
  {
    ship: "Ship",
    deliver: "Mark as delivered",
    cancel: "Cancel",
    shipped: "Shipped",
    delivered: "Delivered",
    cancelled: "Being cancelled",
    shipTitle: { one: "Ship {count} order", other: "Ship {count} orders" },
    deliverTitle: { one: "Mark {count} order as delivered", other: "Mark {count} orders as delivered" },
    cancelTitle: { one: "Cancel {count} order", other: "Cancel {count} orders" },
    shipText: "The customer is told, and sees the carrier and the tracking number. Both may be left out.",
    deliverText: "The customer is told. This cannot be undone.",
    cancelText: "Stock goes back to the shelf, and payments are voided or refunded. The customer is told. This cannot be undone.",
    carrier: "Carrier",
    tracking: "Tracking number",
    reasonHint: "Shown in the timeline of the order. May be left out.",
    back: "Go back",
  },
  {
    ship: "Kargola",
    deliver: "Teslim edildi yap",
    cancel: "İptal et",
    shipped: "Kargolandı",
    delivered: "Teslim edildi",
    cancelled: "İptal ediliyor",
    shipTitle: "{count} siparişi kargola",
    deliverTitle: "{count} siparişi teslim edildi yap",
    cancelTitle: "{count} siparişi iptal et",
    shipText: "Müşteriye bildirilir; kargo firmasını ve takip numarasını görür. İkisi de boş bırakılabilir.",
    deliverText: "Müşteriye bildirilir. Bu geri alınamaz.",
    cancelText: "Stok rafa döner, ödemeler iptal ya da iade edilir. Müşteriye bildirilir. Bu geri alınamaz.",
    carrier: "Kargo firması",
    tracking: "Takip numarası",
    reasonHint: "Siparişin zaman çizelgesinde görünür. Boş bırakılabilir.",
    back: "Vazgeç",
  },
);

/** The destructive one last. @type {Action[]} */
export const ACTIONS = ["ship", "deliver", "cancel"];
const DONE = /** @type {const} */ ({ ship: "shipped", deliver: "delivered", cancel: "cancelled" });

/** @param {Action} action */
export const actionText = (action) => text(action);

/**
 * Whether the API accepts an action now.
 * @param {Action} action
 * @param {string} status
 */
export function isPossible(action, status) {
  if (action === "ship") return status === "CONFIRMED";
  if (action === "deliver") return status === "SHIPPED";
  return status === "CREATED" || status === "CONFIRMED";
}

/**
 * Do it, and return what was done. Throws Problem.
 * @param {Action} action
 * @param {string} id
 * @param {Record<string, string>} values  fields of the body; empty ones are left out
 */
export async function perform(action, id, values) {
  const stated = Object.fromEntries(Object.entries(values).filter(([, value]) => value.trim()));
  await api.post(`/orders/${id}/${action}`, action === "deliver" ? undefined : stated);
  return text(DONE[action]);
}

/**
 * Asks for what an action needs, and for consent.
 * @param {{action: Action, count: number, onRun: (values: Record<string, string>) => Promise<void>, onClose: () => void}} props
 */
export function ActionDialog({ action, count, onRun, onClose }) {
  const title = text(/** @type {"shipTitle"} */ (`${action}Title`), { count });
  const cancel = action === "cancel";
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <p>${text(/** @type {"shipText"} */ (`${action}Text`))}</p>
    <${Form} onSubmit=${onRun} action=${title} kind=${cancel ? "danger" : "primary"} extra=${html`<${Button} onClick=${onClose}>${text("back")}<//>`}>
      ${action === "ship" &&
      html`<${Field} name="carrier" label=${text("carrier")} maxlength=${100} />
        ${count === 1 && html`<${Field} name="tracking_number" label=${text("tracking")} maxlength=${100} />`}`}
      ${cancel && html`<${Field} name="reason" label=${word("reason")} hint=${text("reasonHint")} maxlength=${200} />`}
    <//>
  <//>`;
}
