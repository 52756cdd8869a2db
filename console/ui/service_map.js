/**
 * The services as nodes around the broker. An event is a dot from its producer to the exchange, and from there to each
 * consumer. Dots are a fixed set of circles that one loop moves, so a flood of events costs no more than a few.
 */
import { html, useEffect, useRef } from "../lib/html.js";
import { dictionary } from "../lib/i18n.js";
import { CONSUMERS, kindOf } from "../lib/saga.js";

/** @typedef {import("../lib/saga.js").SagaEvent} SagaEvent */
/** @typedef {{x: number, y: number}} Point */
/** @typedef {{from: Point, to: Point, begin: number, kind: string, arrive?: string, then?: {to: string}[]}} Flight */

const text = dictionary(
  {
    title: "The services, and the events that pass between them",
    broker: "RabbitMQ",
    exchange: "exchange “events”",
    gateway: "REST API",
    orders: "decides",
    inventory: "reserves stock",
    payments: "takes money",
    notifications: "tells people",
    catalog: "prices",
    users: "accounts",
  },
  {
    title: "Servisler ve aralarından geçen olaylar",
    broker: "RabbitMQ",
    exchange: "“events” borsası",
    gateway: "REST API",
    orders: "karar verir",
    inventory: "stok ayırır",
    payments: "para alır",
    notifications: "haber verir",
    catalog: "fiyatlar",
    users: "hesaplar",
  },
);

const CENTRE = { x: 320, y: 170 };
const NODES = /** @type {Record<string, Point>} */ ({
  gateway: { x: 320, y: 34 },
  users: { x: 92, y: 64 },
  catalog: { x: 548, y: 64 },
  orders: { x: 92, y: 170 },
  inventory: { x: 548, y: 170 },
  notifications: { x: 176, y: 290 },
  payments: { x: 464, y: 290 },
});
const WIDTH = 136;
const HEIGHT = 48;
const DOTS = 72;
const FLIGHT_MS = 420;
const GLOW_MS = 700;

/** @param {{subscribe: (listener: (events: SagaEvent[]) => void) => () => void}} props */
export function ServiceMap({ subscribe }) {
  const root = useRef(/** @type {SVGSVGElement | null} */ (null));
  useEffect(() => {
    const animation = new Animation(/** @type {SVGSVGElement} */ (root.current));
    const end = subscribe((events) => animation.show(events));
    return () => {
      end();
      animation.stop();
    };
  }, []);
  return html`<svg ref=${root} class="service-map" viewBox="0 0 640 330" role="img" aria-label=${text("title")}>
    ${Object.entries(NODES).map(([name, at]) => html`<line key=${name} class="edge" x1=${CENTRE.x} y1=${CENTRE.y} x2=${at.x} y2=${at.y} />`)}
    <g class="broker">
      <rect x=${CENTRE.x - 80} y=${CENTRE.y - 28} width="160" height="56" rx="28" />
      <text x=${CENTRE.x} y=${CENTRE.y - 3}>${text("broker")}</text>
      <text class="detail" x=${CENTRE.x} y=${CENTRE.y + 14}>${text("exchange")}</text>
    </g>
    ${Object.entries(NODES).map(
      ([name, { x, y }]) => html`<g key=${name} class="node" data-node=${name}>
        <rect x=${x - WIDTH / 2} y=${y - HEIGHT / 2} width=${WIDTH} height=${HEIGHT} rx="8" />
        <text x=${x} y=${y - 2}>${name}</text>
        <text class="detail" x=${x} y=${y + 14}>${text(/** @type {"orders"} */ (name))}</text>
      </g>`,
    )}
    <g>${Array.from({ length: DOTS }, (_, index) => html`<circle key=${index} class="dot" r="5" cx="-20" cy="-20" />`)}</g>
  </svg>`;
}

class Animation {
  /** @param {SVGSVGElement} root */
  constructor(root) {
    this.free = /** @type {SVGCircleElement[]} */ ([...root.querySelectorAll(".dot")]);
    this.nodes = new Map([...root.querySelectorAll(".node")].map((node) => [node.getAttribute("data-node") ?? "", node]));
    /** @type {Map<string, number>}  until when a node glows */
    this.glowing = new Map();
    /** @type {Map<SVGCircleElement, Flight>} */
    this.flights = new Map();
    this.frame = 0;
    this.isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  }

  /** @param {SagaEvent[]} events */
  show(events) {
    const now = performance.now();
    for (const event of events) {
      this.glow(event.service, now);
      const then = (CONSUMERS[event.event] ?? []).map((to) => ({ to }));
      this.launch({ from: NODES[event.service] ?? CENTRE, to: CENTRE, begin: now, kind: kindOf(event.event), then });
    }
    this.run();
  }

  run() {
    if (!this.frame && (this.flights.size || this.glowing.size)) this.frame = requestAnimationFrame((now) => this.move(now));
  }

  /** Fly if a dot is free; in a flood the rest is left out. @param {Flight} flight */
  launch(flight) {
    const dot = this.isCalm ? undefined : this.free.pop();
    if (!dot) {
      for (const { to } of flight.then ?? []) this.glow(to, flight.begin);
      return;
    }
    dot.setAttribute("class", `dot ${flight.kind}`);
    this.flights.set(dot, flight);
  }

  /**
   * @param {string} name
   * @param {number} now
   */
  glow(name, now) {
    const node = this.nodes.get(name);
    if (!node) return;
    if (!this.glowing.has(name)) node.setAttribute("class", "node glowing");
    this.glowing.set(name, now + GLOW_MS);
  }

  /** @param {number} now */
  move(now) {
    this.frame = 0;
    for (const [dot, flight] of this.flights) {
      const share = Math.min(1, Math.max(0, (now - flight.begin) / FLIGHT_MS));
      if (share < 1) {
        const eased = share * share * (3 - 2 * share);
        dot.setAttribute("cx", String(flight.from.x + (flight.to.x - flight.from.x) * eased));
        dot.setAttribute("cy", String(flight.from.y + (flight.to.y - flight.from.y) * eased));
      } else {
        this.land(dot, flight, now);
      }
    }
    for (const [name, until] of this.glowing) {
      if (until > now) continue;
      this.glowing.delete(name);
      this.nodes.get(name)?.setAttribute("class", "node");
    }
    this.run();
  }

  /**
   * @param {SVGCircleElement} dot
   * @param {Flight} flight
   * @param {number} now
   */
  land(dot, flight, now) {
    this.flights.delete(dot);
    dot.setAttribute("cx", "-20");
    this.free.push(dot);
    if (flight.arrive) this.glow(flight.arrive, now);
    for (const { to } of flight.then ?? []) {
      this.launch({ from: CENTRE, to: NODES[to], begin: now, kind: flight.kind, arrive: to });
    }
  }

  stop() {
    cancelAnimationFrame(this.frame);
  }
}
