/** The stock of one product: set, adjust, threshold, and the ledger of everything that changed it. */
import {
  api, asProblem, ButtonLink, dateTime, dictionary, Empty, Facts, Field, Form, html, link, List, Loaded,
  number, Page, Panel, shortId, statusText, toast, useLivePages, useResource, word,
} from "../kit.js";
import { StockBadge } from "./admin_stock.js";

const text = dictionary(
  {
    title: "Stock of {sku}",
    loading: "Stock",
    product: "Product",
    onHand: "On hand",
    reserved: "Reserved",
    available: "Available",
    threshold: "Low below",
    noThreshold: "no threshold",
    adjust: "Adjust",
    delta: "Change",
    deltaHint: "Such as 20, or -3",
    set: "Set the quantity on hand",
    quantity: "Quantity",
    setHint: "After a count of the shelf. For deliveries and losses, adjust instead.",
    setThreshold: "Set the threshold",
    thresholdHint: "Administrators are told when fewer are available. Empty: never.",
    ledger: "Ledger",
    what: "What",
    change: "On hand",
    reservedChange: "Reserved",
    cause: "Cause",
    none: "No entry yet",
    noRecord: "This product has no stock record yet: it cannot be sold. Set its quantity.",
  },
  {
    title: "{sku} stoku",
    loading: "Stok",
    product: "Ürün",
    onHand: "Eldeki",
    reserved: "Ayrılmış",
    available: "Satılabilir",
    threshold: "Eşik",
    noThreshold: "eşik yok",
    adjust: "Düzelt",
    delta: "Değişim",
    deltaHint: "Örneğin 20 ya da -3",
    set: "Eldeki miktarı belirle",
    quantity: "Miktar",
    setHint: "Raf sayımından sonra. Teslimat ve kayıplar için düzeltmeyi kullanın.",
    setThreshold: "Eşiği belirle",
    thresholdHint: "Satılabilir miktar bunun altına düşünce yöneticilere bildirilir. Boş: hiçbir zaman.",
    ledger: "Hareketler",
    what: "Ne",
    change: "Eldeki",
    reservedChange: "Ayrılmış",
    cause: "Neden",
    none: "Henüz hareket yok",
    noRecord: "Bu ürünün henüz stok kaydı yok, satılamaz. Miktarını girin.",
  },
);

/** @param {{id: string}} props */
export default function AdminStockItem({ id }) {
  const stock = useResource((signal) => read(id, signal), [id]);
  const ledger = useLivePages(`/inventory/${id}/movements`, { limit: 20 });
  const reload = async () => {
    toast(word("saved"));
    await Promise.all([stock.reload(), ledger.reload()]);
  };
  const known = stock.data?.data;
  const title = known?.product_sku ? text("title", { sku: known.product_sku }) : text("loading");
  return html`<${Page} title=${title} actions=${html`<${ButtonLink} href=${link(`/admin/products/${id}`)}>${text("product")}<//>`}>
    <${Loaded} resource=${stock} lines=${8}>
      ${(/** @type {{data: any, etag: string | null}} */ { data, etag }) =>
        data
          ? html`<div class="two-columns">
              <div class="stack"><${Levels} stock=${data} /><${Ledger} ledger=${ledger} /></div>
              <div class="stack"><${Changes} id=${id} stock=${data} etag=${etag} onChange=${reload} /></div>
            </div>`
          : html`<${NoRecord} id=${id} onChange=${reload} />`}
    <//>
  <//>`;
}

/**
 * @param {string} id
 * @param {AbortSignal} signal
 */
async function read(id, signal) {
  try {
    return await api.read(`/inventory/${id}`, { signal });
  } catch (error) {
    if (asProblem(error).code !== "STOCK_NOT_FOUND") throw error;
    return { data: null, etag: null };
  }
}

/** @param {{id: string, onChange: () => Promise<void>}} props */
function NoRecord({ id, onChange }) {
  const create = async (/** @type {Record<string, string>} */ { quantity }) => {
    await api.post("/inventory", { product_id: id, quantity: whole(quantity) });
    await onChange();
  };
  return html`<div class="narrow stack">
    <${Empty} title=${text("noRecord")} />
    <${Form} class="panel" action=${text("set")} onSubmit=${create}>
      <${Field} name="quantity" type="number" label=${text("quantity")} min=${0} required />
    <//>
  </div>`;
}

/** What is not a number stays as it is: the API names the field. @param {string} value */
const whole = (value) => (value.trim() !== "" && Number.isFinite(Number(value)) ? Number(value) : value);

/** @param {{stock: any}} props */
function Levels({ stock }) {
  return html`<div class="panel"><${Facts}
    items=${[
      [word("status"), html`<${StockBadge} stock=${stock} />`],
      [text("onHand"), number(stock.on_hand)],
      [text("reserved"), number(stock.reserved)],
      [text("available"), number(stock.available)],
      [text("threshold"), stock.low_stock === null ? text("noThreshold") : number(stock.low_stock)],
      [word("changed"), dateTime(stock.updated_at)],
    ]}
  /></div>`;
}

/** @param {{id: string, stock: any, etag: string | null, onChange: () => Promise<void>}} props */
function Changes({ id, stock, etag, onChange }) {
  const path = `/inventory/${id}`;
  const after = (/** @type {(values: Record<string, string>) => Promise<unknown>} */ act) => async (/** @type {Record<string, string>} */ values) => {
    await act(values);
    await onChange();
  };
  const adjust = after((values) => api.post(`${path}/adjustments`, { delta: whole(values.delta), reason: values.reason }));
  const set = after((values) => api.put(path, { quantity: whole(values.quantity) }, etag));
  const limit = after((values) => api.put(`${path}/threshold`, { low_stock: values.low_stock.trim() ? whole(values.low_stock) : null }, etag));
  return html`<${Panel} title=${text("adjust")}>
      <${Form} key=${`adjust ${etag}`} action=${text("adjust")} onSubmit=${adjust}>
        <${Field} name="delta" type="number" label=${text("delta")} hint=${text("deltaHint")} required />
        <${Field} name="reason" label=${word("reason")} required maxlength=${200} />
      <//>
    <//>
    <${Panel} title=${text("set")}>
      <${Form} key=${`set ${etag}`} action=${text("set")} kind="plain" onSubmit=${set}>
        <${Field} name="quantity" type="number" label=${text("quantity")} hint=${text("setHint")} value=${stock.on_hand} min=${0} required />
      <//>
    <//>
    <${Panel} title=${text("setThreshold")}>
      <${Form} key=${`threshold ${etag}`} action=${text("setThreshold")} kind="plain" onSubmit=${limit}>
        <${Field} name="low_stock" type="number" label=${text("threshold")} hint=${text("thresholdHint")} value=${stock.low_stock ?? ""} min=${0} />
      <//>
    <//>`;
}

/** @param {{ledger: any}} props */
function Ledger({ ledger }) {
  return html`<h2>${text("ledger")}</h2>
    <${List} pages=${ledger} caption=${text("ledger")} columns=${columns()} none=${text("none")} lines=${6} />`;
}

/**
 * The change and the balance after it.
 * @param {number} delta
 * @param {number} balance
 */
function changed(delta, balance) {
  const sign = delta > 0 ? "+" : "";
  return html`<span>${delta !== 0 && html`<strong>${sign}${number(delta)}</strong> → `}<span class="muted">${number(balance)}</span></span>`;
}

const columns = () =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    { label: word("created"), value: (row) => html`<span class="small">${dateTime(row.created_at)}</span>` },
    { label: text("what"), value: (row) => statusText(row.kind) },
    { label: text("change"), align: "end", value: (row) => changed(row.on_hand_delta, row.on_hand) },
    { label: text("reservedChange"), align: "end", value: (row) => changed(row.reserved_delta, row.reserved) },
    {
      label: text("cause"),
      value: (row) => html`<span>${row.order_id && html`<a class="id" href=${link(`/admin/orders/${row.order_id}`)}>${shortId(row.order_id)}</a> `}${row.reason ? statusText(row.reason) : ""}</span>`,
    },
  ]);
