/** Orders that wait for a service, and events that the broker refuses. */
import { ago, Badge, dateTime, dictionary, html, link, List, Page, shortId, StatusBadge, useLivePages, word } from "../kit.js";

const text = dictionary(
  {
    title: "Waiting and stuck orders",
    intro: "Orders that wait for a service, and for which. One is stuck when it has waited for longer than its deadline.",
    stuck: "Stuck",
    waiting: "All that wait",
    awaits: "Waits for",
    since: "Since",
    deadline: "Deadline",
    past: "past",
    none: "No order is stuck",
    noneWaits: "No order waits",
    noneText: "Every order was decided, and its stock and payment are settled.",
    refused: "Events that the broker refuses",
    refusedText: "They stay in the outbox of their service, and are tried again by themselves.",
    noneRefused: "The broker has taken every event",
    next: "Next try",
  },
  {
    title: "Bekleyen ve takılan siparişler",
    intro: "Bir servisi bekleyen siparişler ve hangisini bekledikleri. Süresinden uzun bekleyen sipariş takılmıştır.",
    stuck: "Takılanlar",
    waiting: "Tüm bekleyenler",
    awaits: "Neyi bekliyor",
    since: "Ne zamandır",
    deadline: "Son an",
    past: "geçti",
    none: "Takılan sipariş yok",
    noneWaits: "Bekleyen sipariş yok",
    noneText: "Her siparişin kararı verildi, stoku ve ödemesi tamam.",
    refused: "Broker'ın reddettiği olaylar",
    refusedText: "Servislerinin outbox'ında kalır ve kendiliğinden yeniden denenir.",
    noneRefused: "Broker tüm olayları aldı",
    next: "Sonraki deneme",
  },
);

/** @param {{query: Record<string, string>}} props */
export default function Sagas({ query }) {
  const isAll = query.view === "waiting";
  const sagas = useLivePages("/admin/sagas", { stuck: !isAll, limit: 20 });
  const refused = useLivePages("/admin/refused-events", { limit: 20 });
  const tab = (/** @type {string} */ view, /** @type {string} */ name) =>
    html`<a href=${link("/admin/sagas", { view })} aria-current=${isAll === (view === "waiting") ? "page" : undefined}>${name}</a>`;
  return html`<${Page} title=${text("title")} intro=${text("intro")}>
    <nav class="tabs" aria-label=${text("title")}>${tab("", text("stuck"))}${tab("waiting", text("waiting"))}</nav>
    <${List} pages=${sagas} caption=${text("title")} columns=${columns()} none=${text(isAll ? "noneWaits" : "none")} noneText=${text("noneText")} lines=${6} />
    <h2>${text("refused")}</h2>
    <p class="muted">${text("refusedText")}</p>
    <${List} pages=${refused} caption=${text("refused")} columns=${refusedColumns()} none=${text("noneRefused")} lines=${3} />
  <//>`;
}

/** @param {string} instant */
const isPast = (instant) => new Date(instant).getTime() < Date.now();

const columns = () =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    { label: word("order"), value: (row) => html`<a class="id" href=${link(`/admin/orders/${row.id}`)}>${shortId(row.id)}</a>` },
    { label: word("status"), value: (row) => html`<${StatusBadge} status=${row.status} />` },
    { label: text("awaits"), value: (row) => html`<ul class="plain-list">${row.awaits.map((/** @type {string} */ one) => html`<li key=${one}>${one}</li>`)}</ul>` },
    { label: text("since"), value: (row) => html`<span title=${dateTime(row.since)}>${ago(row.since)}</span>` },
    { label: text("deadline"), value: (row) => html`<span>${dateTime(row.deadline_at)}${isPast(row.deadline_at) && html` <${Badge} tone="warn">${text("past")}<//>`}</span>` },
  ]);

const refusedColumns = () =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    { label: word("service"), value: (row) => row.service },
    { label: word("event"), value: (row) => html`<code>${row.event}</code>` },
    { label: word("error"), value: (row) => html`<span class="error-text">${row.error}</span>` },
    { label: word("tries"), align: "end", value: (row) => row.attempts },
    { label: text("next"), value: (row) => dateTime(row.next_try_at) },
  ]);
