/** One order as it lives: its present state and its timeline, kept up to date by the stream of its events. */
import { useEffect, useState } from "./html.js";
import { api } from "./api.js";
import { follow } from "./stream.js";
import { useResource } from "./resource.js";

/** @typedef {{event: string, event_id: string, service: string, at: string, data: Record<string, any>}} TimelineEntry */
/** @typedef {{order: import("./resource.js").Resource<any>, timeline: TimelineEntry[], state: import("./stream.js").StreamState}} LiveOrder */

/** What an event of the timeline says about stock and payment: orders draws the same conclusions from it. */
const EFFECTS = /** @type {Record<string, Record<string, string>>} */ ({
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
  CREATED: 0, PENDING: 0, CONFIRMED: 1, RESERVED: 1, AUTHORIZED: 1, SHIPPED: 2, COMMITTED: 2, CAPTURED: 2, DELIVERED: 3,
  PARTIALLY_REFUNDED: 3, CANCELLED: 4, FAILED: 4, RELEASED: 4, RETURNED: 4, VOIDED: 4, REFUNDED: 4,
});

/**
 * @param {string} id
 * @param {(entry: TimelineEntry) => void} [onEntry]  called for each new entry of the timeline
 * @returns {LiveOrder}
 */
export function useLiveOrder(id, onEntry) {
  const order = useResource((signal) => api.get(`/orders/${id}`, {}, { signal }), [id]);
  const [timeline, setTimeline] = useState(/** @type {TimelineEntry[]} */ ([]));
  const [change, setChange] = useState(/** @type {{status: string, cancel_reason: string | null} | null} */ (null));
  const [state, setState] = useState(/** @type {import("./stream.js").StreamState} */ ("connecting"));
  useEffect(() => {
    setTimeline([]);
    setChange(null);
    const known = new Set();
    return follow(`/orders/${id}/events`, {
      onState: setState,
      onEvent: ({ event, data }) => {
        if (event === "status") {
          setChange(data);
        } else if (!known.has(data.event_id)) {
          known.add(data.event_id);
          setTimeline((before) => [...before, data]);
          onEntry?.(data);
        }
      },
    });
  }, [id]);
  // The order may have been read before or after an event: whichever is further holds.
  const data = order.data && withEvents(order.data, timeline, change);
  return { order: { ...order, data }, timeline, state };
}

/**
 * @param {any} order
 * @param {TimelineEntry[]} timeline
 * @param {{status: string, cancel_reason: string | null} | null} change
 */
function withEvents(order, timeline, change) {
  const shown = { ...order };
  if (change && PROGRESS[change.status] > PROGRESS[shown.status]) {
    shown.status = change.status;
    shown.cancel_reason = change.cancel_reason;
  }
  for (const entry of timeline) {
    for (const [field, effect] of Object.entries(EFFECTS[entry.event] ?? {})) {
      const status = effect === "RELEASED" && entry.data.returned ? "RETURNED" : effect;
      if (PROGRESS[status] > PROGRESS[shown[field]]) shown[field] = status;
    }
  }
  return shown;
}
