/** The orders of all customers: filter, act on one or on several, save as CSV. */
import {
  Button, dateTime, dictionary, exportList, Field, html, link, List, money, navigate, Page, Results, Search,
  Select, SelectionBar, shortId, StatusBadge, statusText, useCommands, useLivePages, useState, word,
} from "../kit.js";
import { forEach } from "../lib/bulk.js";
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
  const exportAll = () => exportList("orders", wanted, FIELDS, withUnits);
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
    <${List} pages=${orders} caption=${text("title")} columns=${columns()} none=${text("none")} noneText=${text("noneText")}
      selected=${selected} onSelect=${setSelected} rowLabel=${(/** @type {any} */ row) => shortId(row.id)} />
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

const FIELDS = ["id", "created_at", "user_id", "status", "cancel_reason", "stock_status", "payment_status", "total_amount", "currency",
  "carrier", "tracking_number", "items"];

/** @param {any} order */
const withUnits = (order) => ({ ...order, items: order.items.map((/** @type {any} */ item) => `${item.quantity} x ${item.product_sku}`).join("; ") });
