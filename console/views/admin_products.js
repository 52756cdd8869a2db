/** The products of the catalog for administrators, active or not. */
import {
  ago, api, Badge, Button, ButtonLink, call, confirm, dictionary, html, link, List, money, navigate, Page,
  save, Search, Select, useCommands, usePages, word,
} from "../kit.js";

const text = dictionary(
  {
    title: "Manage products",
    add: "Add a product",
    sku: "SKU",
    name: "Name",
    price: "Price",
    state: "State",
    active: "Sold",
    inactive: "Not sold",
    which: "Show",
    onlyActive: "Only those that are sold",
    sort: "Sort by",
    newest: "Best match, newest",
    edit: "Edit",
    stock: "Stock",
    activate: "Sell again",
    deactivate: "Stop selling",
    deactivateText: "{name} is no longer shown in the shop and cannot be ordered. Orders that exist are not affected.",
    none: "No product fits",
    noneText: "Try fewer or other words, or add a product.",
  },
  {
    title: "Ürünleri yönet",
    add: "Ürün ekle",
    sku: "SKU",
    name: "Ad",
    price: "Fiyat",
    state: "Durum",
    active: "Satışta",
    inactive: "Satışta değil",
    which: "Göster",
    onlyActive: "Yalnızca satıştakiler",
    sort: "Sırala",
    newest: "En iyi eşleşme, en yeni",
    edit: "Düzenle",
    stock: "Stok",
    activate: "Yeniden sat",
    deactivate: "Satışı durdur",
    deactivateText: "{name} artık mağazada görünmez ve sipariş edilemez. Var olan siparişler etkilenmez.",
    none: "Uyan ürün yok",
    noneText: "Daha az ya da başka sözcükler deneyin ya da ürün ekleyin.",
  },
);

const exportAll = async () => save("products.csv", (await call("GET", "/products/export?format=csv", { as: "blob", deadline: 120_000 })).data);

/** @param {{query: Record<string, string>}} props */
export default function AdminProducts({ query }) {
  const products = usePages("/products", { search: query.search, sort: query.sort, only_active: query.only_active ?? "false", limit: 20 });
  const change = (/** @type {Record<string, string>} */ changed) => navigate("/admin/products", { ...query, ...changed }, { replace: true });
  useCommands([{ name: text("add"), run: () => navigate("/admin/products/new") }, { name: word("export"), run: exportAll }], []);
  const toggle = async (/** @type {any} */ product) => {
    const question = { title: text("deactivate"), body: text("deactivateText", { name: product.name }), action: text("deactivate"), isDestructive: true };
    if (product.is_active && !(await confirm(question))) return;
    const changed = await api.patch(`/products/${product.id}`, { is_active: !product.is_active });
    products.change((items) => items.map((one) => (one.id === changed.id ? changed : one)));
  };
  const actions = html`<${ButtonLink} kind="primary" href=${link("/admin/products/new")}>${text("add")}<//>
    <${ButtonLink} href=${link("/admin/products/import")}>${word("import")}<//><${Button} onClick=${exportAll}>${word("export")}<//>`;
  return html`<${Page} title=${text("title")} actions=${actions}>
    <${Filters} query=${query} onChange=${change} />
    <${List} pages=${products} caption=${text("title")} columns=${columns()} none=${text("none")} noneText=${text("noneText")}
        actions=${(/** @type {any} */ row) => html`<${ButtonLink} href=${link(`/admin/products/${row.id}`)}>${text("edit")}<span class="visually-hidden"> ${row.sku}</span><//>
          <${ButtonLink} href=${link(`/admin/stock/${row.id}`)}>${text("stock")}<span class="visually-hidden"> ${row.sku}</span><//>
          <${Button} kind=${row.is_active ? "danger" : "plain"} onClick=${() => toggle(row)}>${text(row.is_active ? "deactivate" : "activate")}<span class="visually-hidden"> ${row.sku}</span><//>`} />
  <//>`;
}

const columns = () =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    { label: text("name"), value: (row) => html`<div><a href=${link(`/admin/products/${row.id}`)}>${row.name}</a><div class="muted small">${row.sku}</div></div>` },
    { label: text("price"), align: "end", value: (row) => money(row.price, row.currency) },
    { label: text("state"), value: (row) => html`<${Badge} tone=${row.is_active ? "good" : "neutral"}>${text(row.is_active ? "active" : "inactive")}<//>` },
    { label: word("changed"), value: (row) => ago(row.updated_at) },
  ]);

/** @param {{query: Record<string, string>, onChange: (changed: Record<string, string>) => void}} props */
function Filters({ query, onChange }) {
  const sorts = [["", text("newest")], ["name", text("name")], ["sku", text("sku")], ["price", text("price")]];
  return html`<div class="filters">
    <${Search} label=${word("search")} value=${query.search ?? ""} onSearch=${(/** @type {string} */ search) => onChange({ search })} />
    <${Select} name="only_active" label=${text("which")} value=${query.only_active ?? "false"}
      onInput=${(/** @type {string} */ wanted) => onChange({ only_active: wanted })}
      options=${[{ value: "false", label: word("all") }, { value: "true", label: text("onlyActive") }]} />
    <${Select} name="sort" label=${text("sort")} value=${query.sort ?? ""} onInput=${(/** @type {string} */ sort) => onChange({ sort })}
      options=${sorts.map(([value, label]) => ({ value, label }))} />
  </div>`;
}
