/** What the events of the suite mean: who sends them to whom, and what they change in an order. */

/** @typedef {{event: string, event_id: string, service: string, at: string, data: Record<string, any>, order_id?: string | null}} SagaEvent */
/** @typedef {{id: string, status: string, cancel_reason: string | null, stock_status: string, payment_status: string}} OrderState */
/** @typedef {"orders" | "inventory" | "payments" | "notifications" | "catalog" | "users" | "gateway"} ServiceName */

/** The call that begins a saga. */
export const PLACE_CALL = "POST /orders";

/** The services that receive each event, as contracts/ states them; and the one that a call goes to. */
export const CONSUMERS = /** @type {Record<string, ServiceName[]>} */ ({
  [PLACE_CALL]: ["orders"],
  "order.created": ["inventory", "payments", "notifications"],
  "order.confirmed": ["inventory", "payments", "notifications"],
  "order.cancelled": ["inventory", "payments", "notifications"],
  "order.shipped": ["notifications"],
  "order.delivered": ["notifications"],
  "inventory.stock_reserved": ["orders"],
  "inventory.stock_failed": ["orders"],
  "inventory.stock_committed": ["orders"],
  "inventory.stock_released": ["orders"],
  "inventory.stock_low": ["notifications"],
  "payment.authorized": ["orders"],
  "payment.failed": ["orders"],
  "payment.captured": ["orders"],
  "payment.voided": ["orders"],
  "payment.partially_refunded": ["orders", "notifications"],
  "payment.refunded": ["orders", "notifications"],
  "product.created": ["orders", "inventory"],
  "product.updated": ["orders", "inventory"],
  "user.registered": ["notifications"],
  "user.updated": ["notifications", "gateway"],
  "user.password_reset_requested": ["notifications"],
  "user.email_verification_requested": ["notifications"],
  "user.deleted": ["notifications", "orders", "payments"],
});

/** What an event changes: orders draws the same conclusions from it. */
const EFFECTS = /** @type {Record<string, Partial<OrderState>>} */ ({
  "order.created": { status: "CREATED" },
  "order.confirmed": { status: "CONFIRMED" },
  "order.cancelled": { status: "CANCELLED" },
  "order.shipped": { status: "SHIPPED" },
  "order.delivered": { status: "DELIVERED" },
  "inventory.stock_reserved": { stock_status: "RESERVED" },
  "inventory.stock_failed": { stock_status: "FAILED" },
  "inventory.stock_committed": { stock_status: "COMMITTED" },
  "inventory.stock_released": { stock_status: "RELEASED" },
  "payment.authorized": { payment_status: "AUTHORIZED" },
  "payment.failed": { payment_status: "FAILED" },
  "payment.captured": { payment_status: "CAPTURED" },
  "payment.voided": { payment_status: "VOIDED" },
  "payment.partially_refunded": { payment_status: "PARTIALLY_REFUNDED" },
  "payment.refunded": { payment_status: "REFUNDED" },
});

/** Statuses in their order: a late event never sets an earlier one. */
const PROGRESS = /** @type {Record<string, number>} */ ({
  CREATED: 0, CONFIRMED: 1, SHIPPED: 2, DELIVERED: 3, CANCELLED: 4,
  PENDING: 0, RESERVED: 1, COMMITTED: 2, FAILED: 4, RELEASED: 4, RETURNED: 4,
  AUTHORIZED: 1, CAPTURED: 2, PARTIALLY_REFUNDED: 3, VOIDED: 4, REFUNDED: 4,
});

const SETTLED_STOCK = new Set(["COMMITTED", "FAILED", "RELEASED", "RETURNED"]);
const SETTLED_PAYMENT = new Set(["CAPTURED", "FAILED", "VOIDED", "REFUNDED", "PARTIALLY_REFUNDED"]);
const BAD = new Set(["inventory.stock_failed", "payment.failed", "order.cancelled"]);
const UNDONE = new Set(["inventory.stock_released", "payment.voided", "payment.refunded", "payment.partially_refunded"]);

/** @type {Omit<OrderState, "id">} */
export const NEW_ORDER = { status: "CREATED", cancel_reason: null, stock_status: "PENDING", payment_status: "PENDING" };

/**
 * An order after an event; the same object if the event changes nothing.
 * @template {Omit<OrderState, "id">} T
 * @param {T} order
 * @param {{event: string, data: Record<string, any>}} event
 * @returns {T}
 */
export function afterEvent(order, { event, data }) {
  let after = order;
  for (const [name, effect] of Object.entries(EFFECTS[event] ?? {})) {
    const field = /** @type {"status" | "stock_status" | "payment_status"} */ (name);
    const wanted = /** @type {string} */ (effect);
    const status = wanted === "RELEASED" && data.returned ? "RETURNED" : wanted;
    if (PROGRESS[status] <= PROGRESS[after[field]]) continue;
    after = { ...after, [field]: status };
    if (status === "CANCELLED") after.cancel_reason = data.reason ?? null;
  }
  return after;
}

/**
 * Whether nothing more will happen to an order without somebody's doing.
 * @param {Omit<OrderState, "id">} order
 */
export function isSettled(order) {
  if (order.status === "CREATED") return false;
  return SETTLED_STOCK.has(order.stock_status) && SETTLED_PAYMENT.has(order.payment_status);
}

/**
 * How an event is coloured: progress, failure, or the undoing of what was done.
 * @param {string} event
 * @returns {"call" | "step" | "bad" | "undo"}
 */
export function kindOf(event) {
  if (event === PLACE_CALL) return "call";
  if (BAD.has(event)) return "bad";
  return UNDONE.has(event) ? "undo" : "step";
}
