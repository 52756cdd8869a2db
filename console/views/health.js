/** The health board: parts of the services, what waits in them, circuit breakers, and how orders go. */
import {
  api, Badge, dictionary, duration, html, link, Loaded, Loading, number, Page, Panel, ProblemBox, Stale,
  statusText, Table, useEffect, useRef, useResource, useState, word,
} from "../kit.js";
import { Rates, REFUSALS } from "../lib/rates.js";
import { follow } from "../lib/stream.js";
import { Plot } from "../ui/plot.js";

const text = dictionary(
  {
    title: "Health",
    intro: "Renewed every few seconds. The plots show what passes while this page is open.",
    ok: "All parts work",
    degraded: "A part is down",
    parts: "Parts",
    down: "{part} is down",
    silent: "No response",
    outbox: "Outbox",
    lag: "Lag",
    refused: "Refused events",
    letters: "Dead letters",
    circuits: "Circuit breakers",
    closed: { one: "{count} closed", other: "{count} closed" },
    open: "{name}: open",
    half_open: "{name}: probing",
    gateway: "gateway",
    noCircuits: "none",
    live: "Live",
    notLive: "Not live",
    placed: "Placed",
    confirmed: "Confirmed",
    cancelled: "Cancelled",
    since: "Since this page was opened",
    throughput: "Orders a second",
    decided: "Decided",
    settle: "Time to the decision",
    median: "Half of them within",
    slow: "95 % within",
    refusals: "Refused orders a second",
  },
  {
    title: "Sağlık",
    intro: "Birkaç saniyede bir yenilenir. Grafikler bu sayfa açıkken geçenleri gösterir.",
    ok: "Tüm parçalar çalışıyor",
    degraded: "Bir parça çalışmıyor",
    parts: "Parçalar",
    down: "{part} çalışmıyor",
    silent: "Yanıt yok",
    outbox: "Outbox",
    lag: "Gecikme",
    refused: "Reddedilen olay",
    letters: "Dead letter'lar",
    circuits: "Devre kesiciler",
    closed: "{count} kapalı",
    open: "{name}: açık",
    half_open: "{name}: deneniyor",
    gateway: "geçit",
    noCircuits: "yok",
    live: "Canlı",
    notLive: "Canlı değil",
    placed: "Verilen",
    confirmed: "Onaylanan",
    cancelled: "İptal edilen",
    since: "Bu sayfa açıldığından beri",
    throughput: "Saniyede sipariş",
    decided: "Karara bağlanan",
    settle: "Karara kadar geçen süre",
    median: "Yarısı şu sürede",
    slow: "%95'i şu sürede",
    refusals: "Saniyede reddedilen sipariş",
  },
);

const RENEWED_MS = 3_000;
const DRAWN_MS = 1_000;
const COLORS = /** @type {const} */ ({ OUT_OF_STOCK: "--warn", PAYMENT_FAILED: "--bad", TIMEOUT: "--muted" });

export default function Health() {
  const ready = useResource((signal) => api.get("/health/ready", {}, { signal }), [], { every: RENEWED_MS });
  const health = useResource((signal) => api.get("/admin/health", {}, { signal }), [], { every: RENEWED_MS });
  return html`<${Page} title=${text("title")} intro=${text("intro")}>
    <${Readiness} ready=${ready} />
    <${Loaded} resource=${health} lines=${9}>
      ${(/** @type {any} */ data) => html`<${Board} health=${data} ready=${ready.data} />`}
    <//>
    <${Orders} />
  <//>`;
}

/** @param {{ready: import("../lib/resource.js").Resource<any>}} props */
function Readiness({ ready }) {
  if (!ready.data) return ready.problem ? html`<${ProblemBox} problem=${ready.problem} onRetry=${ready.reload} />` : html`<${Loading} lines=${1} />`;
  const isOk = ready.data.status === "ok";
  return html`${ready.problem && html`<${Stale} problem=${ready.problem} at=${ready.loadedAt} />`}
    <p role="status"><${Badge} tone=${isOk ? "good" : "bad"}>${text(isOk ? "ok" : "degraded")}<//></p>`;
}

/** @param {{health: any, ready: any}} props */
function Board({ health, ready }) {
  const services = Object.entries(health.services).map(([name, backlog]) => ({ name, backlog, parts: ready?.services[name] ?? {} }));
  const rows = [...services, { name: "gateway", backlog: { circuits: health.circuits }, parts: {} }];
  return html`<${Table} caption=${text("title")} rows=${rows} columns=${columns()} rowKey=${(/** @type {any} */ row) => row.name} />`;
}

const columns = () =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    { label: word("service"), value: (row) => html`<strong>${row.name === "gateway" ? text("gateway") : row.name}</strong>` },
    { label: text("parts"), value: (row) => html`<${Parts} row=${row} />` },
    { label: text("outbox"), align: "end", value: (row) => counted(row.backlog?.outbox) },
    { label: text("lag"), align: "end", value: (row) => lag(row.backlog?.outbox_oldest_seconds) },
    { label: text("refused"), align: "end", value: (row) => counted(row.backlog?.refused_events, "/admin/sagas") },
    { label: text("letters"), align: "end", value: (row) => counted(row.backlog?.dead_letters, "/admin/dead-letters") },
    { label: text("circuits"), value: (row) => html`<${Circuits} circuits=${row.backlog?.circuits} />` },
  ]);

/** @param {{row: any}} props */
function Parts({ row }) {
  if (row.backlog === null) return html`<${Badge} tone="bad">${text("silent")}<//>`;
  return html`<span class="parts">${Object.entries(row.parts).map(
    ([part, state]) => html`<${Badge} key=${part} tone=${state === "ok" ? "good" : "bad"}>${state === "ok" ? part : text("down", { part })}<//>`,
  )}</span>`;
}

/**
 * @param {number | undefined} count
 * @param {string} [path]  where they are listed
 */
function counted(count, path) {
  if (count === undefined) return "–";
  return count && path ? html`<a href=${link(path)}>${number(count)}</a>` : number(count);
}

/** @param {number | undefined} seconds */
function lag(seconds) {
  if (!seconds) return "–";
  return html`<span class=${seconds > 10 ? "bad-text" : ""}>${duration(seconds * 1000)}</span>`;
}

/** @param {{circuits?: {name: string, state: string}[]}} props */
function Circuits({ circuits }) {
  if (!circuits) return html`–`;
  const closed = circuits.filter((one) => one.state === "closed").length;
  const others = circuits.filter((one) => one.state !== "closed");
  return html`<span class="parts">
    ${others.map((one) => html`<${Badge} key=${one.name} tone=${one.state === "open" ? "bad" : "warn"}>${text(/** @type {"open"} */ (one.state), { name: one.name })}<//>`)}
    ${closed ? html`<${Badge} tone="good">${text("closed", { count: closed })}<//>` : others.length === 0 && html`<span class="muted">${text("noCircuits")}</span>`}
  </span>`;
}

/** The plots, computed from the events that pass. */
function Orders() {
  const rates = useRef(/** @type {Rates | null} */ (null));
  rates.current ??= new Rates();
  const [state, setState] = useState(/** @type {import("../lib/stream.js").StreamState} */ ("connecting"));
  const [series, setSeries] = useState(() => /** @type {Rates} */ (rates.current).series());
  useEffect(() => {
    const counting = /** @type {Rates} */ (rates.current);
    const stop = follow("/admin/events", { onState: setState, onEvent: ({ data }) => counting.add(data) });
    const timer = setInterval(() => document.hidden || setSeries(counting.series()), DRAWN_MS);
    return () => {
      stop();
      clearInterval(timer);
    };
  }, []);
  const isLive = state === "live";
  const decimal = (/** @type {number} */ value) => number(Math.round(value * 10) / 10);
  const seconds = (/** @type {number} */ value) => duration(value * 1000);
  return html`<${Panel} title=${text("since")} actions=${html`<${Badge} tone=${isLive ? "good" : "neutral"}>${text(isLive ? "live" : "notLive")}<//>`}>
      <dl class="numbers">
        ${/** @type {const} */ (["placed", "confirmed", "cancelled"]).map((name) => html`<div key=${name}><dt>${text(name)}</dt><dd>${number(rates.current?.totals[name] ?? 0)}</dd></div>`)}
      </dl>
    <//>
    <div class="plots">
      <${Plot} title=${text("throughput")} at=${series.at} format=${decimal}
        lines=${[{ label: text("placed"), color: "--accent", values: series.placed }, { label: text("decided"), color: "--good", values: series.decided }]} />
      <${Plot} title=${text("settle")} at=${series.at} format=${seconds} least=${0.2}
        lines=${[{ label: text("median"), color: "--accent", values: series.median }, { label: text("slow"), color: "--warn", values: series.slow }]} />
      <${Plot} title=${text("refusals")} at=${series.at} format=${decimal}
        lines=${REFUSALS.map((reason) => ({ label: statusText(reason), color: COLORS[reason], values: series.refused[reason] }))} />
    </div>`;
}
