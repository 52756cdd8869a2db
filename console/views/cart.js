/** The cart, and placing the order. */
import { html, useMemo, useSignal } from "../lib/html.js";
import { api, keyring, newKey } from "../lib/api.js";
import { cart, cartTotal, emptyCart, setQuantity } from "../lib/cart.js";
import { money } from "../lib/format.js";
import { Problem } from "../lib/http.js";
import { dictionary } from "../lib/i18n.js";
import { link, navigate } from "../lib/router.js";
import { session } from "../lib/session.js";
import { ButtonLink } from "../ui/button.js";
import { Field, Form } from "../ui/form.js";
import { Page, Panel } from "../ui/page.js";
import { Empty } from "../ui/state.js";
import { Table } from "../ui/table.js";
import { Quantity } from "./products.js";

const text = dictionary(
  {
    title: "Cart",
    empty: "The cart is empty",
    products: "To the products",
    product: "Product",
    price: "Price",
    quantity: "Quantity",
    sum: "Sum",
    total: "Total",
    order: "Place the order",
    signIn: "Sign in to place the order",
    address: "Delivery address",
    optional: "May be left out.",
    name: "Name",
    line1: "Street and number",
    city: "City",
    postal: "Postal code",
    country: "Country, as two letters",
  },
  {
    title: "Sepet",
    empty: "Sepet boş",
    products: "Ürünlere git",
    product: "Ürün",
    price: "Fiyat",
    quantity: "Adet",
    sum: "Tutar",
    total: "Toplam",
    order: "Sipariş ver",
    signIn: "Sipariş vermek için giriş yapın",
    address: "Teslimat adresi",
    optional: "Boş bırakılabilir.",
    name: "Ad",
    line1: "Sokak ve numara",
    city: "Şehir",
    postal: "Posta kodu",
    country: "Ülke, iki harfle",
  },
);

/**
 * Place an order of cart lines, with the prices that the customer has seen.
 * @param {import("../lib/cart.js").CartLine[]} lines
 * @param {Record<string, unknown>} [more]  further fields of the order
 * @param {string} [key]
 * @returns {Promise<any>}  the order
 */
export function placeOrder(lines, more = {}, key = newKey()) {
  const items = lines.map(({ product, quantity }) => ({
    product_id: product.id,
    quantity,
    price_snapshot: product.price,
  }));
  return api.post("/orders", { items, ...more }, { key });
}

export default function Cart() {
  const lines = useSignal(cart);
  if (!lines.length) {
    return html`<${Page} title=${text("title")}>
      <${Empty} title=${text("empty")}><${ButtonLink} kind="primary" href=${link("/products")}>${text("products")}<//><//>
    <//>`;
  }
  return html`<${Page} title=${text("title")}>
    <div class="two-columns">
      <${Lines} lines=${lines} />
      <${Order} lines=${lines} />
    </div>
  <//>`;
}

/** @param {{lines: import("../lib/cart.js").CartLine[]}} props */
function Lines({ lines }) {
  return html`<${Table}
    caption=${text("title")}
    rows=${lines}
    rowKey=${(/** @type {any} */ line) => line.product.id}
    columns=${[
      { label: text("product"), value: (/** @type {any} */ line) => line.product.name },
      { label: text("price"), align: "end", value: (/** @type {any} */ line) => money(line.product.price, line.product.currency) },
      { label: text("quantity"), align: "end", value: (/** @type {any} */ line) => html`<${Quantity} product=${line.product} />` },
    ]}
  />`;
}

/** @param {{lines: import("../lib/cart.js").CartLine[]}} props */
function Order({ lines }) {
  const total = useSignal(cartTotal);
  const current = useSignal(session);
  // The same cart that is sent twice is one order, also after an error whose outcome is unknown.
  const keyFor = useMemo(keyring, []);
  const submit = async (/** @type {Record<string, string>} */ values) => {
    const stated = Object.fromEntries(Object.entries(values).filter(([, value]) => value.trim()));
    try {
      const more = Object.keys(stated).length ? { shipping_address: stated } : {};
      const order = await placeOrder(lines, more, keyFor([lines, more]));
      emptyCart();
      navigate(`/orders/${order.id}`);
    } catch (error) {
      if (error instanceof Problem && error.code === "PRICE_CHANGED") await renewPrices(lines);
      throw relativeTo(error);
    }
  };
  const sum = html`<p class="total line"><span>${text("total")}</span><span>${money(total)}</span></p>`;
  if (!current) {
    return html`<${Panel} title=${text("order")}>${sum}
      <${ButtonLink} kind="primary" href=${link("/sign-in", { next: "/cart" })}>${text("signIn")}<//>
    <//>`;
  }
  return html`<${Panel} title=${text("order")}>
    ${sum}
    <${Form} onSubmit=${submit} action=${text("order")}>
      <details>
        <summary>${text("address")}</summary>
        <p class="hint">${text("optional")}</p>
        <${Field} name="name" label=${text("name")} autocomplete="name" maxlength=${200} />
        <${Field} name="line1" label=${text("line1")} autocomplete="address-line1" maxlength=${200} />
        <${Field} name="city" label=${text("city")} autocomplete="address-level2" maxlength=${100} />
        <${Field} name="postal_code" label=${text("postal")} autocomplete="postal-code" maxlength=${20} />
        <${Field} name="country" label=${text("country")} autocomplete="country" maxlength=${2} />
      </details>
    <//>
  <//>`;
}

/** Show the present prices after 409 PRICE_CHANGED. @param {import("../lib/cart.js").CartLine[]} lines */
async function renewPrices(lines) {
  const products = await Promise.all(lines.map((line) => api.get(`/products/${line.product.id}`)));
  for (const [index, product] of products.entries()) setQuantity(product, lines[index].quantity);
}

/** The API names `shipping_address.city`, the form `city`. @param {unknown} error */
function relativeTo(error) {
  if (error instanceof Problem) {
    error.errors = error.errors.map((one) => ({ ...one, field: one.field.replace(/^shipping_address\./, "") }));
  }
  return error;
}
