/** The payments of all orders. */
import { html } from "../lib/html.js";
import { useLivePages, word } from "../lib/admin.js";
import { allPages, csv, save } from "../lib/export.js";
import { dateTime, money, number, shortId } from "../lib/format.js";
import { dictionary } from "../lib/i18n.js";
import { link, navigate } from "../lib/router.js";
import { StatusBadge, statusText } from "../ui/badge.js";
import { Button } from "../ui/button.js";
import { Select } from "../ui/form.js";
import { Page } from "../ui/page.js";
import { Search } from "../ui/search.js";
import { Empty, Loaded } from "../ui/state.js";
import { More, Table } from "../ui/table.js";
import { toast } from "../ui/toast.js";

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
  const exportAll = async () => {
    const { rows, isComplete } = await allPages("/payments", wanted);
    save("payments.csv", csv(rows, FIELDS.map((label) => ({ label, value: (row) => row[label] }))));
    if (!isComplete) toast(word("capped", { count: number(rows.length) }), "info");
  };
  const options = [{ value: "", label: word("all") }, ...STATUSES.map((value) => ({ value, label: statusText(value) }))];
  return html`<${Page} title=${text("title")} actions=${html`<${Button} onClick=${exportAll}>${word("export")}<//>`}>
    <div class="filters">
      <${Select} name="status" label=${word("status")} value=${query.status ?? ""} options=${options} onInput=${(/** @type {string} */ status) => change({ status })} />
      <${Search} name="order" label=${text("byOrder")} value=${query.order ?? ""} onSearch=${(/** @type {string} */ order) => change({ order })} />
    </div>
    <${Loaded} resource=${payments} lines=${10} empty=${html`<${Empty} title=${text("none")}><p>${text("noneText")}</p><//>`}>
      ${(/** @type {any[]} */ rows) => html`<${Table} caption=${text("title")} rows=${rows} columns=${columns()} rowKey=${(/** @type {any} */ row) => row.id} />`}
    <//>
    <${More} pages=${payments} />
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
