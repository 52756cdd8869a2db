/** The cart: on this device only, until it becomes an order. */
import { computed, signal } from "./html.js";
import { decimal, hundredths } from "./money.js";
import { store, stored } from "./preferences.js";

/** @typedef {{id: string, sku: string, name: string, price: string, currency: string}} CartProduct */
/** @typedef {{product: CartProduct, quantity: number}} CartLine  The price is the one that the customer has seen. */

export const MAX_LINES = 100;
export const MAX_QUANTITY = 10_000;

/** @type {import("@preact/signals-core").Signal<CartLine[]>} */
export const cart = signal(read());
export const cartCount = computed(() => cart.value.reduce((sum, line) => sum + line.quantity, 0));

/** The total as a decimal string. */
export const cartTotal = computed(() => {
  const sums = cart.value.map((line) => hundredths(line.product.price) * BigInt(line.quantity));
  return decimal(sums.reduce((total, sum) => total + sum, 0n));
});

addEventListener("storage", () => {
  cart.value = read(); // another tab has changed it
});

/** @returns {CartLine[]} */
function read() {
  try {
    const lines = JSON.parse(stored("cart") ?? "[]");
    return Array.isArray(lines) ? lines.filter((line) => line?.product?.id && line.quantity > 0) : [];
  } catch {
    return [];
  }
}

/** @param {CartLine[]} lines */
function keep(lines) {
  store("cart", JSON.stringify(lines));
  cart.value = lines;
}

/**
 * Set how many units of a product are in the cart; 0 removes it.
 * @param {CartProduct} product
 * @param {number} quantity
 */
export function setQuantity(product, quantity) {
  const { id, sku, name, price, currency } = product;
  const wanted = Math.min(MAX_QUANTITY, Math.max(0, Math.trunc(quantity) || 0));
  const line = { product: { id, sku, name, price, currency }, quantity: wanted };
  const others = cart.value.map((one) => (one.product.id === id ? line : one));
  const all = others.includes(line) ? others : [...others, line];
  keep(all.filter((one) => one.quantity > 0).slice(0, MAX_LINES));
}

/** @param {string} id */
export function quantityOf(id) {
  return cart.value.find((line) => line.product.id === id)?.quantity ?? 0;
}

export function emptyCart() {
  keep([]);
}
