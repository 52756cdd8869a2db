/** Adding a product, or changing one that nobody else has changed meanwhile. */
import {
  api, ButtonLink, Checkbox, dictionary, Field, Form, html, link, Loaded, navigate, Page, toast, useResource,
  word,
} from "../kit.js";

const text = dictionary(
  {
    add: "Add a product",
    edit: "Edit the product",
    sku: "SKU",
    skuHint: "Letters, digits and . _ -",
    name: "Name",
    price: "Price",
    priceHint: "With two places, such as 149.90",
    description: "Description",
    active: "It is sold in the shop",
    added: "Added. Now set its stock.",
    stock: "Stock",
  },
  {
    add: "Ürün ekle",
    edit: "Ürünü düzenle",
    sku: "SKU",
    skuHint: "Harfler, rakamlar ve . _ -",
    name: "Ad",
    price: "Fiyat",
    priceHint: "İki haneli, örneğin 149.90",
    description: "Açıklama",
    active: "Mağazada satışta",
    added: "Eklendi. Şimdi stokunu girin.",
    stock: "Stok",
  },
);

/** @param {{id?: string}} props */
export default function AdminProduct({ id }) {
  return id ? html`<${Edit} id=${id} />` : html`<${Add} />`;
}

function Add() {
  const add = async (/** @type {Record<string, string>} */ values) => {
    const product = await api.post("/products", bodyOf(values));
    toast(text("added"));
    navigate(`/admin/stock/${product.id}`);
  };
  return html`<${Page} title=${text("add")}><${ProductForm} action=${text("add")} onSubmit=${add} /><//>`;
}

/** @param {{id: string}} props */
function Edit({ id }) {
  const product = useResource((signal) => api.read(`/products/${id}`, { signal }), [id]);
  const stock = html`<${ButtonLink} href=${link(`/admin/stock/${id}`)}>${text("stock")}<//>`;
  return html`<${Page} title=${text("edit")} actions=${stock}>
    <${Loaded} resource=${product} lines=${6}>
      ${(/** @type {import("../lib/http.js").Reply} */ { data, etag }) => {
        const change = async (/** @type {Record<string, string>} */ values) => {
          await api.patch(`/products/${id}`, bodyOf(values), etag);
          toast(word("saved"));
          await product.reload();
        };
        return html`<${ProductForm} key=${etag} product=${data} action=${word("save")} onSubmit=${change} />`;
      }}
    <//>
  <//>`;
}

/** @param {Record<string, string>} values */
const bodyOf = ({ is_active: active, ...values }) => ({ ...values, is_active: active === "on" });

/** @param {{product?: any, action: string, onSubmit: (values: Record<string, string>) => Promise<void>}} props */
function ProductForm({ product, action, onSubmit }) {
  return html`<div class="narrow"><${Form} action=${action} onSubmit=${onSubmit} class="panel">
    <${Field} name="sku" label=${text("sku")} hint=${text("skuHint")} value=${product?.sku} required maxlength=${64} />
    <${Field} name="name" label=${text("name")} value=${product?.name} required maxlength=${200} />
    <${Field} name="price" label=${text("price")} hint=${text("priceHint")} value=${product?.price} required inputmode="decimal" />
    <${Field} name="description" type="textarea" label=${text("description")} value=${product?.description} />
    <${Checkbox} name="is_active" label=${text("active")} checked=${product?.is_active ?? true} />
  <//></div>`;
}
