/**
 * The orders that pass, by their events: what the live page shows. Events arrive at any rate; subscribers are told at
 * most once a frame.
 */
import { signal } from "./html.js";
import { afterEvent, NEW_ORDER } from "./saga.js";

/** @typedef {import("./saga.js").SagaEvent} SagaEvent */
/** @typedef {import("./saga.js").OrderState & {total: string, currency: string, isMine: boolean, entries: SagaEvent[]}} BoardOrder */

const MAX_ORDERS = 60;
const MAX_EVENTS = 200;
const MAX_IDS = 5_000;

export class Board {
  constructor() {
    /** @type {Map<string, BoardOrder>} */
    this.orders = new Map();
    /** @type {SagaEvent[]}  the newest last */
    this.events = [];
    /** Changes when something has changed, at most once a frame. */
    this.version = signal(0);
    this.count = 0;
    /** @type {Set<string>} */
    this.known = new Set();
    /** @type {Set<(events: SagaEvent[]) => void>}  called with the events of each frame */
    this.listeners = new Set();
    /** @type {SagaEvent[]} */
    this.waiting = [];
    this.frame = 0;
  }

  /**
   * Show an order that was just placed here, before its first event.
   * @param {any} order
   */
  place(order) {
    const seen = this.orders.get(order.id);
    const known = seen ?? { id: order.id, ...NEW_ORDER, entries: [], total: "", currency: "" };
    this.keep({ ...known, total: order.total_amount, currency: order.currency, isMine: true });
    this.changed();
  }

  /** @param {SagaEvent} event */
  add(event) {
    if (this.known.has(event.event_id)) return;
    this.known.add(event.event_id);
    if (this.known.size > MAX_IDS) this.known.delete(/** @type {string} */ (this.known.values().next().value));
    this.waiting.push(event);
    this.changed();
  }

  changed() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => this.apply());
  }

  apply() {
    this.frame = 0;
    const events = this.waiting;
    this.waiting = [];
    for (const event of events) this.applyOne(event);
    this.count += events.length;
    this.events = [...this.events, ...events].slice(-MAX_EVENTS);
    if (events.length) this.tell(events);
    this.version.value += 1;
  }

  /** @param {SagaEvent} event */
  applyOne(event) {
    const id = event.order_id ?? event.data.order_id;
    if (!id) return;
    const seen = this.orders.get(id);
    if (!seen && event.event !== "order.created") return; // it began before this page
    const order = seen ?? { id, ...NEW_ORDER, entries: [], total: "", currency: "", isMine: false };
    const total = event.event === "order.created" ? { total: event.data.total_amount, currency: event.data.currency } : {};
    this.keep({ ...afterEvent(order, event), ...total, entries: [...order.entries, event] });
  }

  /** @param {BoardOrder} order */
  keep(order) {
    this.orders.set(order.id, order);
    if (this.orders.size <= MAX_ORDERS) return;
    const oldest = [...this.orders.values()].find((one) => !one.isMine) ?? this.orders.values().next().value;
    if (oldest) this.orders.delete(oldest.id);
  }

  /** The newest orders first. @param {number} most */
  newest(most) {
    return [...this.orders.values()].slice(-most).reverse();
  }

  /** @param {SagaEvent[]} events */
  tell(events) {
    for (const listener of this.listeners) listener(events);
  }

  /** Show a call to the API, which is no event, in the map only. @param {string} call */
  announce(call) {
    this.tell([{ event: call, event_id: "", service: "gateway", at: "", data: {} }]);
  }

  /**
   * @param {(events: SagaEvent[]) => void} listener
   * @returns {() => void}
   */
  subscribe(listener) {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  stop() {
    cancelAnimationFrame(this.frame);
    this.listeners.clear();
  }
}
