/** How orders go, computed from the events that pass while the page is open. */

const BUCKET_MS = 2_000;
const BUCKETS = 150;
const MOST_ORDERS = 5_000;
const MOST_TIMES = 500;

export const WINDOW_SECONDS = (BUCKET_MS * BUCKETS) / 1000;
export const REFUSALS = /** @type {const} */ (["OUT_OF_STOCK", "PAYMENT_FAILED", "TIMEOUT"]);

/** @typedef {{placed: number, decided: number, times: number[], refused: Record<string, number>}} Bucket */
/**
 * @typedef {object} Series  one value for each bucket, the oldest first; null where there is nothing to say
 * @property {number[]} at  seconds since 1970
 * @property {(number | null)[]} placed  a second
 * @property {(number | null)[]} decided  a second
 * @property {(number | null)[]} median  seconds from order.created to the decision
 * @property {(number | null)[]} slow  the 95th percentile of it
 * @property {Record<string, (number | null)[]>} refused  a second, by reason
 */

export class Rates {
  /** @param {() => number} [clock] */
  constructor(clock = Date.now) {
    this.clock = clock;
    this.began = this.index(clock());
    /** @type {Map<number, Bucket>} */
    this.buckets = new Map();
    /** @type {Map<string, number>}  undecided orders, and when they were placed */
    this.placed = new Map();
    this.totals = { placed: 0, confirmed: 0, cancelled: 0 };
    /** @type {Set<string>}  after a fault an event may come twice */
    this.known = new Set();
  }

  /** @param {number} time */
  index(time) {
    return Math.floor(time / BUCKET_MS);
  }

  /** @param {{event: string, event_id: string, order_id?: string, at: string, data: any}} event */
  add(event) {
    if (!event.event?.startsWith("order.") || this.known.has(event.event_id)) return;
    remember(this.known, event.event_id);
    const id = event.data.order_id ?? event.order_id;
    const time = Math.min(Date.parse(event.at), this.clock());
    const bucket = this.bucket(this.index(time));
    if (event.event === "order.created") {
      this.totals.placed += 1;
      bucket.placed += 1;
      this.placed.set(id, Date.parse(event.at));
      if (this.placed.size > MOST_ORDERS) this.placed.delete(/** @type {string} */ (this.placed.keys().next().value));
    } else if (event.event === "order.confirmed" || event.event === "order.cancelled") {
      this.decide(bucket, event, id);
    }
  }

  /**
   * @param {Bucket} bucket
   * @param {{event: string, at: string, data: any}} event
   * @param {string} id
   */
  decide(bucket, event, id) {
    const isConfirmed = event.event === "order.confirmed";
    this.totals[isConfirmed ? "confirmed" : "cancelled"] += 1;
    const reason = event.data.reason;
    const isDecision = isConfirmed || REFUSALS.includes(reason);
    if (!isDecision) return; // somebody cancelled it
    bucket.decided += 1;
    if (!isConfirmed) bucket.refused[reason] = (bucket.refused[reason] ?? 0) + 1;
    const placed = this.placed.get(id);
    this.placed.delete(id);
    if (placed !== undefined && bucket.times.length < MOST_TIMES) bucket.times.push((Date.parse(event.at) - placed) / 1000);
  }

  /** @param {number} index */
  bucket(index) {
    let found = this.buckets.get(index);
    if (!found) {
      found = { placed: 0, decided: 0, times: [], refused: {} };
      this.buckets.set(index, found);
      for (const old of this.buckets.keys()) if (old < index - BUCKETS) this.buckets.delete(old);
    }
    return found;
  }

  /** @returns {Series} */
  series() {
    const last = this.index(this.clock()) - 1; // the present bucket is not complete
    const indexes = Array.from({ length: BUCKETS }, (_, position) => last - BUCKETS + 1 + position);
    const each = (/** @type {(bucket: Bucket | undefined) => number | null} */ read) =>
      indexes.map((index) => (index < this.began ? null : read(this.buckets.get(index))));
    const perSecond = (/** @type {number | undefined} */ count) => ((count ?? 0) * 1000) / BUCKET_MS;
    return {
      at: indexes.map((index) => (index * BUCKET_MS) / 1000),
      placed: each((bucket) => perSecond(bucket?.placed)),
      decided: each((bucket) => perSecond(bucket?.decided)),
      median: each((bucket) => quantile(bucket?.times, 0.5)),
      slow: each((bucket) => quantile(bucket?.times, 0.95)),
      refused: Object.fromEntries(REFUSALS.map((reason) => [reason, each((bucket) => perSecond(bucket?.refused[reason]))])),
    };
  }
}

/**
 * @param {Set<string>} known
 * @param {string} id
 */
function remember(known, id) {
  known.add(id);
  if (known.size > 2 * MOST_ORDERS) known.delete(/** @type {string} */ (known.values().next().value));
}

/**
 * @param {number[] | undefined} values
 * @param {number} share
 */
function quantile(values, share) {
  if (!values?.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}
