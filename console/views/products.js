/** The products of the shop: search, sort, and a quantity of each for the cart. */
import { html, useEffect, useSignal, useState } from "../lib/html.js";
import { cart, cartCount, cartTotal, quantityOf, setQuantity } from "../lib/cart.js";
import { money } from "../lib/format.js";
import { dictionary } from "../lib/i18n.js";
import { usePages } from "../lib/resource.js";
import { link, navigate } from "../lib/router.js";
import { Button, ButtonLink } from "../ui/button.js";
import { Field, Select } from "../ui/form.js";
import { Page } from "../ui/page.js";
import { Empty, Loaded } from "../ui/state.js";
import { More } from "../ui/table.js";

const SEARCH_PAUSE_MS = 250;

const text = dictionary(
  {
    title: "Products",
    search: "Search products",
    sort: "Sort by",
    best: "Best match, newest",
    cheap: "Price, low to high",
    dear: "Price, high to low",
    name: "Name",
    none: "No product has this in its name, description or SKU",
    noneText: "Try fewer or other words. Small typing errors are found anyway.",
    add: "Add to the cart",
    addThis: "Add to the cart: {name}",
    more: "One more {name}",
    less: "One less {name}",
    inCart: "{count} in the cart",
    cart: { one: "Cart: {count} unit, {total}", other: "Cart: {count} units, {total}" },
  },
  {
    title: "Ürünler",
    search: "Ürün ara",
    sort: "Sırala",
    best: "En iyi eşleşme, en yeni",
    cheap: "Fiyat, artan",
    dear: "Fiyat, azalan",
    name: "Ad",
    none: "Adında, açıklamasında ya da SKU'sunda bu olan ürün yok",
    noneText: "Daha az ya da başka sözcükler deneyin. Küçük yazım yanlışları zaten bulunur.",
    add: "Sepete ekle",
    addThis: "Sepete ekle: {name}",
    more: "Bir tane daha {name}",
    less: "Bir tane az {name}",
    inCart: "Sepette {count}",
    cart: "Sepet: {count} adet, {total}",
  },
);

/** @param {{query: Record<string, string>}} props */
export default function Products({ query }) {
  const products = usePages("/products", { search: query.search, sort: query.sort, limit: 24 });
  const change = (/** @type {Record<string, string>} */ changed) => navigate("/products", { ...query, ...changed }, { replace: true });
  return html`<${Page} title=${text("title")} actions=${html`<${CartTotal} />`}>
    <div class="filters">
      <${Search} value=${query.search ?? ""} onSearch=${(/** @type {string} */ search) => change({ search })} />
      <${Select}
        name="sort"
        label=${text("sort")}
        value=${query.sort ?? ""}
        onInput=${(/** @type {string} */ sort) => change({ sort })}
        options=${[
          { value: "", label: text("best") },
          { value: "price", label: text("cheap") },
          { value: "-price", label: text("dear") },
          { value: "name", label: text("name") },
        ]}
      />
    </div>
    <${Loaded} resource=${products} lines=${8} empty=${html`<${Empty} title=${text("none")}><p>${text("noneText")}</p><//>`}>
      ${(/** @type {any[]} */ items) => html`<ul class="cards">
        ${items.map((product) => html`<${Product} key=${product.id} product=${product} />`)}
      </ul>`}
    <//>
    <${More} pages=${products} />
  <//>`;
}

/** @param {{value: string, onSearch: (wanted: string) => void}} props */
function Search({ value, onSearch }) {
  const [wanted, setWanted] = useState(value);
  useEffect(() => {
    if (wanted === value) return undefined;
    const timer = setTimeout(() => onSearch(wanted), SEARCH_PAUSE_MS);
    return () => clearTimeout(timer);
  }, [wanted]);
  return html`<${Field} name="search" type="search" label=${text("search")} value=${value} onInput=${setWanted} maxlength=${100} />`;
}

function CartTotal() {
  const count = useSignal(cartCount);
  const total = useSignal(cartTotal);
  if (!count) return null;
  return html`<${ButtonLink} kind="primary" href=${link("/cart")}>${text("cart", { count, total: money(total) })}<//>`;
}

/** @param {{product: any}} props */
function Product({ product }) {
  return html`<li class="card product">
    <div>
      <h2>${product.name}</h2>
      <p class="muted small">${product.sku}</p>
      <p class="description">${product.description}</p>
    </div>
    <div class="line">
      <span class="price">${money(product.price, product.currency)}</span>
      <${Quantity} product=${product} />
    </div>
  </li>`;
}

/** The buttons that change how many units of a product are in the cart. @param {{product: any}} props */
export function Quantity({ product }) {
  useSignal(cart);
  const count = quantityOf(product.id);
  const set = (/** @type {number} */ wanted) => () => setQuantity(product, wanted);
  if (!count) return html`<${Button} label=${text("addThis", { name: product.name })} onClick=${set(1)}>${text("add")}<//>`;
  return html`<span class="stepper">
    <${Button} icon="minus" label=${text("less", { name: product.name })} onClick=${set(count - 1)} />
    <span aria-live="polite"><span class="visually-hidden">${text("inCart", { count })}</span><span aria-hidden="true">${count}</span></span>
    <${Button} icon="plus" label=${text("more", { name: product.name })} onClick=${set(count + 1)} />
  </span>`;
}
