/** The orders of all customers: filter, act on one or on several, save as CSV. */
import { html, useState } from "../lib/html.js";
import { useLivePages, word } from "../lib/admin.js";
import { forEach } from "../lib/bulk.js";
import { allPages, csv, save } from "../lib/export.js";
import { dateTime, money, number, shortId } from "../lib/format.js";
import { dictionary } from "../lib/i18n.js";
import { link, navigate } from "../lib/router.js";
import { StatusBadge, statusText } from "../ui/badge.js";
import { Button } from "../ui/button.js";
import { Field, Select } from "../ui/form.js";
import { Page } from "../ui/page.js";
import { useCommands } from "../ui/palette.js";
import { Results, SelectionBar } from "../ui/results.js";
import { Search } from "../ui/search.js";
import { Empty, Loaded } from "../ui/state.js";
import { More, Table } from "../ui/table.js";
import { toast } from "../ui/toast.js";
import { ACTIONS, ActionDialog, actionText, perform } from "./admin_order_actions.js";

const text = dictionary(
  {
    title: "All orders",
    from: "From",
    until: "Before",
    user: "Id of the customer",
    none: "No order fits",
    noneText: "Change the filter, or wait for the first order.",
    stock: "Stock",
    ofCustomer: "Orders of this customer",
  },
  {
    title: "Tüm siparişler",
    from: "Başlangıç",
    until: "Bitiş (hariç)",
    user: "Müşteri kimliği",
    none: "Uyan sipariş yok",
    noneText: "Süzgeci değiştirin ya da ilk siparişi bekleyin.",
    stock: "Stok",
    ofCustomer: "Bu müşterinin siparişleri",
  },
);

const STATUSES = ["CREATED", "CONFIRMED", "SHIPPED", "DELIVERED", "CANCELLED"];

/** The day of an input as the instant at which it begins here. @param {string | undefined} day */
const instant = (day) => (day ? new Date(`${day}T00:00:00`).toISOString() : undefined);

/** @param {{query: Record<string, string>}} props */
export default function AdminOrders({ query }) {
  const wanted = { status: query.status, created_after: instant(query.from), created_before: instant(query.until), user_id: query.user };
  const orders = useLivePages("/orders", { ...wanted, limit: 20 });
  const [selected, setSelected] = useState(/** @type {Set<string>} */ (new Set()));
  const [action, setAction] = useState(/** @type {import("./admin_order_actions.js").Action | ""} */ (""));
  const [results, setResults] = useState(/** @type {import("../lib/bulk.js").Result[] | null} */ (null));
  const change = (/** @type {Record<string, string>} */ changed) => {
    setSelected(new Set());
    navigate("/admin/orders", { ...query, ...changed }, { replace: true });
  };
  const exportAll = () => exportOrders(wanted);
  useCommands([{ name: word("export"), run: exportAll }], [query]);
  const run = async (/** @type {Record<string, string>} */ values) => {
    if (!action) return;
    setResults(await forEach(selected, (id) => perform(action, id, values)));
    setAction("");
    setSelected(new Set());
    await orders.reload();
  };
  return html`<${Page} title=${text("title")} actions=${html`<${Button} onClick=${exportAll}>${word("export")}<//>`}>
    <${Filters} query=${query} onChange=${change} />
    <${SelectionBar} selected=${selected} onClear=${() => setSelected(new Set())}>
      ${ACTIONS.map(
        (one) => html`<${Button} key=${one} kind=${one === "cancel" ? "danger" : "plain"} disabled=${!selected.size} onClick=${() => setAction(one)}>${actionText(one)}<//>`,
      )}
    <//>
    <${Results} results=${results} label=${orderLink} onClose=${() => setResults(null)} />
    <${Loaded} resource=${orders} lines=${10} empty=${html`<${Empty} title=${text("none")}><p>${text("noneText")}</p><//>`}>
      ${(/** @type {any[]} */ rows) => html`<${Table} caption=${text("title")} rows=${rows} columns=${columns()} rowKey=${(/** @type {any} */ row) => row.id}
        selected=${selected} onSelect=${setSelected} rowLabel=${(/** @type {any} */ row) => shortId(row.id)} />`}
    <//>
    <${More} pages=${orders} />
    ${action && html`<${ActionDialog} action=${action} count=${selected.size} onRun=${run} onClose=${() => setAction("")} />`}
  <//>`;
}

/** @param {string} id */
const orderLink = (id) => html`<a class="id" href=${link(`/admin/orders/${id}`)}>${shortId(id)}</a>`;

const columns = () =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    { label: word("order"), value: (row) => orderLink(row.id) },
    { label: word("created"), value: (row) => dateTime(row.created_at) },
    {
      label: word("customer"),
      value: (row) => html`<a class="id" title=${text("ofCustomer")} href=${link("/admin/orders", { user: row.user_id })}>${shortId(row.user_id)}</a>`,
    },
    { label: word("status"), value: (row) => html`<${StatusBadge} status=${row.status} reason=${row.cancel_reason} />` },
    { label: text("stock"), value: (row) => html`<${StatusBadge} status=${row.stock_status} />` },
    { label: word("payment"), value: (row) => html`<${StatusBadge} status=${row.payment_status} />` },
    { label: word("total"), align: "end", value: (row) => money(row.total_amount, row.currency) },
  ]);

/** @param {{query: Record<string, string>, onChange: (changed: Record<string, string>) => void}} props */
function Filters({ query, onChange }) {
  const options = [{ value: "", label: word("all") }, ...STATUSES.map((value) => ({ value, label: statusText(value) }))];
  return html`<div class="filters">
    <${Select} name="status" label=${word("status")} value=${query.status ?? ""} options=${options} onInput=${(/** @type {string} */ status) => onChange({ status })} />
    <${Field} name="from" type="date" label=${text("from")} value=${query.from} onInput=${(/** @type {string} */ from) => onChange({ from })} />
    <${Field} name="until" type="date" label=${text("until")} value=${query.until} onInput=${(/** @type {string} */ until) => onChange({ until })} />
    <${Search} key=${query.user} name="user" label=${text("user")} value=${query.user ?? ""} onSearch=${(/** @type {string} */ user) => onChange({ user })} />
  </div>`;
}

/** @param {import("../lib/api.js").Query} wanted */
async function exportOrders(wanted) {
  const { rows, isComplete } = await allPages("/orders", wanted);
  const fields = ["id", "created_at", "user_id", "status", "cancel_reason", "stock_status", "payment_status", "total_amount", "currency", "carrier", "tracking_number"];
  const units = { label: "items", value: (/** @type {any} */ row) => row.items.map((/** @type {any} */ item) => `${item.quantity} x ${item.product_sku}`).join("; ") };
  save("orders.csv", csv(rows, [...fields.map((label) => ({ label, value: (/** @type {any} */ row) => row[label] })), units]));
  if (!isComplete) toast(word("capped", { count: number(rows.length) }), "info");
}
