/** The stock of all products, or of those that a search finds. */
import {
  ago, api, asProblem, Badge, Button, ButtonLink, dictionary, exportList, html, link, List, navigate, number,
  Page, Search, useLivePages, useResource, word,
} from "../kit.js";

const text = dictionary(
  {
    title: "Stock",
    search: "Find a product",
    onHand: "On hand",
    reserved: "Reserved",
    available: "Available",
    threshold: "Low below",
    low: "Low",
    out: "Sold out",
    ok: "In stock",
    noRecord: "No stock record",
    none: "No product here",
    noneText: "Set the stock of a product: find it by its name or SKU.",
  },
  {
    title: "Stok",
    search: "Ürün bul",
    onHand: "Eldeki",
    reserved: "Ayrılmış",
    available: "Satılabilir",
    threshold: "Eşik",
    low: "Azaldı",
    out: "Tükendi",
    ok: "Stokta",
    noRecord: "Stok kaydı yok",
    none: "Burada ürün yok",
    noneText: "Bir ürünün stokunu girin: adıyla ya da SKU'suyla bulun.",
  },
);

const FIELDS = ["product_id", "product_sku", "on_hand", "reserved", "available", "low_stock", "updated_at"];

/** @param {{query: Record<string, string>}} props */
export default function AdminStock({ query }) {
  const change = (/** @type {string} */ search) => navigate("/admin/stock", { search }, { replace: true });
  const exportAll = () => exportList("inventory", {}, FIELDS);
  const actions = html`<${ButtonLink} href=${link("/admin/stock/import")}>${word("import")}<//><${Button} onClick=${exportAll}>${word("export")}<//>`;
  return html`<${Page} title=${text("title")} actions=${actions}>
    <div class="filters"><${Search} label=${text("search")} value=${query.search ?? ""} onSearch=${change} /></div>
    ${query.search ? html`<${Found} search=${query.search} />` : html`<${All} />`}
  <//>`;
}

function All() {
  const stock = useLivePages("/inventory", { limit: 20 });
  return html`<${Stock} pages=${stock} />`;
}

/** @param {{search: string}} props */
function Found({ search }) {
  const found = useResource((signal) => stockOf(search, signal), [search]);
  return html`<${Stock} pages=${found} />`;
}

/**
 * @param {string} search
 * @param {AbortSignal} signal
 */
async function stockOf(search, signal) {
  const { items } = await api.get("/products", { search, only_active: false, limit: 10 }, { signal });
  return Promise.all(items.map((/** @type {any} */ product) => stockOrNone(product, signal)));
}

/**
 * @param {any} product
 * @param {AbortSignal} signal
 */
async function stockOrNone(product, signal) {
  try {
    return await api.get(`/inventory/${product.id}`, {}, { signal });
  } catch (error) {
    if (asProblem(error).code !== "STOCK_NOT_FOUND") throw error;
    return { product_id: product.id, product_sku: product.sku };
  }
}

/** @param {{pages: import("../lib/resource.js").Resource<any[]>}} props */
function Stock({ pages }) {
  return html`<${List} pages=${pages} caption=${text("title")} columns=${columns()} none=${text("none")} noneText=${text("noneText")} rowKey=${(/** @type {any} */ row) => row.product_id} />`;
}

/** @param {{stock: any}} props */
export function StockBadge({ stock }) {
  if (stock.available === undefined) return html`<${Badge}>${text("noRecord")}<//>`;
  if (stock.available === 0) return html`<${Badge} tone="bad">${text("out")}<//>`;
  return stock.is_low ? html`<${Badge} tone="warn">${text("low")}<//>` : html`<${Badge} tone="good">${text("ok")}<//>`;
}

/** @param {number | null | undefined} value */
const count = (value) => (value === null || value === undefined ? "–" : number(value));

const columns = () =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    { label: word("product"), value: (row) => html`<a href=${link(`/admin/stock/${row.product_id}`)}>${row.product_sku}</a>` },
    { label: word("status"), value: (row) => html`<${StockBadge} stock=${row} />` },
    { label: text("onHand"), align: "end", value: (row) => count(row.on_hand) },
    { label: text("reserved"), align: "end", value: (row) => count(row.reserved) },
    { label: text("available"), align: "end", value: (row) => count(row.available) },
    { label: text("threshold"), align: "end", value: (row) => count(row.low_stock) },
    { label: word("changed"), value: (row) => (row.updated_at ? ago(row.updated_at) : "–") },
  ]);
