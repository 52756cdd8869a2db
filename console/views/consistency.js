/** The comparison of what all services store about the same orders. */
import {
  api, Badge, Button, dateTime, dictionary, Field, html, link, Loaded, navigate, number, Page, shortId, Table,
  useResource, word,
} from "../kit.js";

const text = dictionary(
  {
    title: "Consistency",
    intro: "Compares orders with stock, payments and notifications. At rest, every number must be zero.",
    check: "Check now",
    since: "Orders from this day on",
    invariant: "What must hold",
    count: "Violations",
    examples: "First ones",
    atRest: "At rest",
    inFlight: "{count} in flight: numbers can be above zero until they are handled",
    sound: "Everything holds",
    broken: { one: "{count} check has violations", other: "{count} checks have violations" },
    checked: "Checked {at}",
    orders_decided: "Every order is decided within its deadline",
    decided_once: "Every order was decided once",
    ended_for_good: "A cancelled or delivered order never changes again",
    stock_in_bounds: "Reserved is never more than on hand",
    stock_reserved: "Reserved is the sum of the open reservations",
    stock_balance: "The last entry of the ledger is the stock",
    stock_ledger: "The entries of the ledger add up",
    stock_low_known: "Low stock was reported",
    refunds_sum: "The refunds of a payment add up",
    refunds_within_capture: "Never more is refunded than was captured",
    confirmed_has_stock: "Confirmed orders have their stock",
    confirmed_is_paid: "Confirmed orders are paid",
    cancelled_holds_no_stock: "Cancelled orders hold no stock",
    cancelled_holds_no_money: "Cancelled orders hold no money",
    order_knows_stock: "Orders know the state of their stock",
    order_knows_payment: "Orders know the state of their payment",
    customer_notified: "Customers were notified",
    no_orphans: "Nothing belongs to an unknown order",
    ranges_not_compared: "Every range of orders was compared",
    outboxes_empty: "The outboxes are empty",
    queues_empty: "The queues are empty",
    no_dead_letters: "There are no dead letters",
  },
  {
    title: "Tutarlılık",
    intro: "Siparişleri stok, ödeme ve bildirimlerle karşılaştırır. Durgunken tüm sayılar sıfır olmalıdır.",
    check: "Şimdi denetle",
    since: "Şu günden sonraki siparişler",
    invariant: "Ne geçerli olmalı",
    count: "İhlal",
    examples: "İlkleri",
    atRest: "Durgun",
    inFlight: "{count} işlem sürüyor: bitene dek sayılar sıfırdan büyük olabilir",
    sound: "Her şey geçerli",
    broken: "{count} denetimde ihlal var",
    checked: "Denetlendi: {at}",
    orders_decided: "Her siparişe süresinde karar verilir",
    decided_once: "Her siparişe bir kez karar verildi",
    ended_for_good: "İptal ya da teslim edilen sipariş bir daha değişmez",
    stock_in_bounds: "Ayrılmış, eldekinden çok değildir",
    stock_reserved: "Ayrılmış, açık ayırmaların toplamıdır",
    stock_balance: "Son hareketin bakiyesi stoktur",
    stock_ledger: "Hareketler toplamı tutar",
    stock_low_known: "Azalan stok bildirildi",
    refunds_sum: "Bir ödemenin iadeleri toplamı tutar",
    refunds_within_capture: "Tahsil edilenden çoğu iade edilmez",
    confirmed_has_stock: "Onaylı siparişlerin stoku vardır",
    confirmed_is_paid: "Onaylı siparişler ödenmiştir",
    cancelled_holds_no_stock: "İptal edilen siparişler stok tutmaz",
    cancelled_holds_no_money: "İptal edilen siparişler para tutmaz",
    order_knows_stock: "Siparişler stok durumlarını bilir",
    order_knows_payment: "Siparişler ödeme durumlarını bilir",
    customer_notified: "Müşterilere bildirildi",
    no_orphans: "Bilinmeyen siparişe ait bir şey yok",
    ranges_not_compared: "Tüm sipariş aralıkları karşılaştırıldı",
    outboxes_empty: "Outbox'lar boş",
    queues_empty: "Kuyruklar boş",
    no_dead_letters: "Dead letter yok",
  },
);

const NOT_ABOUT_ORDERS = new Set(["stock_in_bounds", "stock_reserved", "stock_balance", "stock_ledger", "stock_low_known", "refunds_sum",
  "refunds_within_capture", "no_orphans", "ranges_not_compared", "outboxes_empty", "queues_empty", "no_dead_letters"]);

/** @param {{query: Record<string, string>}} props */
export default function Consistency({ query }) {
  const since = query.since ? new Date(`${query.since}T00:00:00`).toISOString() : undefined;
  const report = useResource((signal) => api.get("/admin/consistency", { since }, { signal }), [since]);
  const choose = (/** @type {string} */ day) => navigate("/admin/consistency", { since: day }, { replace: true });
  return html`<${Page} title=${text("title")} intro=${text("intro")} actions=${html`<${Button} kind="primary" busy=${report.isLoading} onClick=${report.reload}>${text("check")}<//>`}>
    <div class="filters"><${Field} name="since" type="date" label=${text("since")} value=${query.since} onInput=${choose} /></div>
    <${Loaded} resource=${report} lines=${12}>
      ${(/** @type {any} */ data) => html`<${Summary} report=${data} at=${report.loadedAt} />
        <${Table} caption=${text("title")} rows=${sorted(data.checks)} columns=${columns()} rowKey=${(/** @type {any} */ row) => row.name} />`}
    <//>
  <//>`;
}

/** Violations first. @param {any[]} checks */
const sorted = (checks) => [...checks].sort((a, b) => b.count - a.count);

/** @param {{report: any, at: string}} props */
function Summary({ report, at }) {
  const broken = report.checks.filter((/** @type {any} */ check) => check.count).length;
  return html`<p class="parts" role="status">
    <${Badge} tone=${broken ? (report.at_rest ? "bad" : "warn") : "good"}>${broken ? text("broken", { count: broken }) : text("sound")}<//>
    <${Badge} tone=${report.at_rest ? "good" : "info"}>${report.at_rest ? text("atRest") : text("inFlight", { count: number(report.in_flight) })}<//>
    <span class="muted small">${text("checked", { at: dateTime(at) })}</span>
  </p>`;
}

const columns = () =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    { label: text("invariant"), value: (row) => html`<div>${text(row.name)}<div class="muted small">${row.name}</div></div>` },
    { label: text("count"), align: "end", value: (row) => html`<${Badge} tone=${row.count ? "bad" : "good"}>${number(row.count)}<//>` },
    { label: text("examples"), value: (row) => html`<${Examples} check=${row} />` },
  ]);

/** @param {{check: any}} props */
function Examples({ check }) {
  if (check.name === "no_dead_letters" && check.count) return html`<a href=${link("/admin/dead-letters")}>${word("open")}</a>`;
  return html`<span class="parts">${check.ids.slice(0, 5).map((/** @type {string} */ id) =>
    NOT_ABOUT_ORDERS.has(check.name)
      ? html`<span key=${id} class="id" title=${id}>${shortId(id)}</span>`
      : html`<a key=${id} class="id" href=${link(`/admin/orders/${id}`)}>${shortId(id)}</a>`,
  )}</span>`;
}
