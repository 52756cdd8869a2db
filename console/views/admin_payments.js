/** The payments of all orders. */
import {
  Button, dateTime, dictionary, exportList, html, link, List, money, navigate, Page, Search, Select, shortId,
  StatusBadge, statusText, useLivePages, word,
} from "../kit.js";

const text = dictionary(
  { title: "Payments", refunded: "Refunded", byOrder: "Id of the order", none: "No payment fits", noneText: "Change the filter." },
  { title: "Ödemeler", refunded: "İade edilen", byOrder: "Sipariş kimliği", none: "Uyan ödeme yok", noneText: "Süzgeci değiştirin." },
);

const STATUSES = ["PENDING", "AUTHORIZED", "FAILED", "CAPTURED", "VOIDED", "PARTIALLY_REFUNDED", "REFUNDED"];
const FIELDS = ["id", "order_id", "user_id", "created_at", "status", "amount", "refunded_amount", "currency", "transaction_reference", "failure_reason"];

/** @param {{query: Record<string, string>}} props */
export default function AdminPayments({ query }) {
  const wanted = { status: query.status, order_id: query.order };
  const payments = useLivePages("/payments", { ...wanted, limit: 20 });
  const change = (/** @type {Record<string, string>} */ changed) => navigate("/admin/payments", { ...query, ...changed }, { replace: true });
  const exportAll = () => exportList("payments", wanted, FIELDS);
  const options = [{ value: "", label: word("all") }, ...STATUSES.map((value) => ({ value, label: statusText(value) }))];
  return html`<${Page} title=${text("title")} actions=${html`<${Button} onClick=${exportAll}>${word("export")}<//>`}>
    <div class="filters">
      <${Select} name="status" label=${word("status")} value=${query.status ?? ""} options=${options} onInput=${(/** @type {string} */ status) => change({ status })} />
      <${Search} name="order" label=${text("byOrder")} value=${query.order ?? ""} onSearch=${(/** @type {string} */ order) => change({ order })} />
    </div>
    <${List} pages=${payments} caption=${text("title")} columns=${columns()} none=${text("none")} noneText=${text("noneText")} />
  <//>`;
}

const columns = () =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    { label: word("payment"), value: (row) => html`<a class="id" href=${link(`/admin/payments/${row.id}`)}>${shortId(row.id)}</a>` },
    { label: word("created"), value: (row) => dateTime(row.created_at) },
    { label: word("order"), value: (row) => html`<a class="id" href=${link(`/admin/orders/${row.order_id}`)}>${shortId(row.order_id)}</a>` },
    { label: word("status"), value: (row) => html`<${StatusBadge} status=${row.status} />` },
    { label: word("amount"), align: "end", value: (row) => money(row.amount, row.currency) },
    { label: text("refunded"), align: "end", value: (row) => (Number(row.refunded_amount) ? money(row.refunded_amount, row.currency) : "–") },
  ]);
