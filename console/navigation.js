/** All views: where they are, who sees them, and in which part of the navigation they stand. */
import { dictionary } from "./lib/i18n.js";
import { match } from "./lib/router.js";
import { isAdmin } from "./lib/session.js";

/** @typedef {"anyone" | "user" | "admin"} Audience */
/** @typedef {"shop" | "account" | "administration" | "operation"} Section */
/**
 * @typedef {object} View
 * @property {string} path  a pattern such as `/orders/:id`; parameters become props of the view, beside `query`
 * @property {() => string} title
 * @property {Audience} audience
 * @property {Section} [section]  without one it is not in the navigation
 * @property {() => Promise<{default: (props: any) => any}>} load
 */

const text = dictionary(
  {
    shop: "Shop",
    account: "My account",
    administration: "Administration",
    operation: "Operation",
    start: "Live demo",
    products: "Products",
    cart: "Cart",
    orders: "My orders",
    order: "Order",
    adminOrders: "All orders",
    adminProducts: "Manage products",
    adminProduct: "Product",
    importProducts: "Import products",
    adminStock: "Stock",
    importStock: "Import stock",
    adminPayments: "Payments",
    adminPayment: "Payment",
    adminUsers: "Users",
    health: "Health",
    sagas: "Stuck orders",
    deadLetters: "Dead letters",
    consistency: "Consistency",
    signIn: "Sign in",
    signUp: "Create an account",
  },
  {
    shop: "Mağaza",
    account: "Hesabım",
    administration: "Yönetim",
    operation: "İşletim",
    start: "Canlı gösteri",
    products: "Ürünler",
    cart: "Sepet",
    orders: "Siparişlerim",
    order: "Sipariş",
    adminOrders: "Tüm siparişler",
    adminProducts: "Ürünleri yönet",
    adminProduct: "Ürün",
    importProducts: "Ürünleri içe aktar",
    adminStock: "Stok",
    importStock: "Stok içe aktar",
    adminPayments: "Ödemeler",
    adminPayment: "Ödeme",
    adminUsers: "Kullanıcılar",
    health: "Sağlık",
    sagas: "Takılan siparişler",
    deadLetters: "Dead letter'lar",
    consistency: "Tutarlılık",
    signIn: "Giriş yap",
    signUp: "Hesap aç",
  },
);

/** @type {View[]} */
export const views = [
  { path: "/products", title: () => text("products"), audience: "anyone", section: "shop", load: () => import("./views/products.js") },
  { path: "/cart", title: () => text("cart"), audience: "anyone", section: "shop", load: () => import("./views/cart.js") },
  { path: "/orders/:id", title: () => text("order"), audience: "user", load: () => import("./views/order.js") },
  { path: "/sign-in", title: () => text("signIn"), audience: "anyone", load: () => import("./views/sign_in.js") },
  { path: "/sign-up", title: () => text("signUp"), audience: "anyone", load: () => import("./views/sign_up.js") },
];

/** @type {View[]} */
const adminViews = [
  { path: "/admin/orders", title: () => text("adminOrders"), audience: "admin", section: "administration", load: () => import("./views/admin_orders.js") },
  { path: "/admin/orders/:id", title: () => text("order"), audience: "admin", load: () => import("./views/admin_order.js") },
  { path: "/admin/products", title: () => text("adminProducts"), audience: "admin", section: "administration", load: () => import("./views/admin_products.js") },
  { path: "/admin/products/new", title: () => text("adminProduct"), audience: "admin", load: () => import("./views/admin_product.js") },
  { path: "/admin/products/import", title: () => text("importProducts"), audience: "admin", load: () => import("./views/admin_import.js") },
  { path: "/admin/products/:id", title: () => text("adminProduct"), audience: "admin", load: () => import("./views/admin_product.js") },
  { path: "/admin/stock", title: () => text("adminStock"), audience: "admin", section: "administration", load: () => import("./views/admin_stock.js") },
  { path: "/admin/stock/import", title: () => text("importStock"), audience: "admin", load: () => import("./views/admin_import.js") },
  { path: "/admin/stock/:id", title: () => text("adminStock"), audience: "admin", load: () => import("./views/admin_stock_item.js") },
  { path: "/admin/payments", title: () => text("adminPayments"), audience: "admin", section: "administration", load: () => import("./views/admin_payments.js") },
  { path: "/admin/payments/:id", title: () => text("adminPayment"), audience: "admin", load: () => import("./views/admin_payment.js") },
  { path: "/admin/users", title: () => text("adminUsers"), audience: "admin", section: "administration", load: () => import("./views/admin_users.js") },
  { path: "/admin/health", title: () => text("health"), audience: "admin", section: "operation", load: () => import("./views/health.js") },
  { path: "/admin/sagas", title: () => text("sagas"), audience: "admin", section: "operation", load: () => import("./views/sagas.js") },
  { path: "/admin/dead-letters", title: () => text("deadLetters"), audience: "admin", section: "operation", load: () => import("./views/dead_letters.js") },
  { path: "/admin/consistency", title: () => text("consistency"), audience: "admin", section: "operation", load: () => import("./views/consistency.js") },
];
views.push(...adminViews);

/** @type {Section[]} */
const sections = ["shop", "account", "administration", "operation"];

export const HOME = "/products";

/**
 * The view at a path, with the parameters in it.
 * @param {string} path
 */
export function viewAt(path) {
  const wanted = path === "/" ? HOME : path;
  for (const view of views) {
    const parameters = match(view.path, wanted);
    if (parameters) return { view, parameters };
  }
  return null;
}

/**
 * @param {View} view
 * @param {import("./lib/session.js").Session | null} session
 */
export function maySee(view, session) {
  if (view.audience === "anyone") return true;
  return view.audience === "user" ? session !== null : isAdmin(session);
}

/**
 * The navigation for a reader: sections with their views.
 * @param {import("./lib/session.js").Session | null} session
 */
export function menu(session) {
  return sections
    .map((section) => ({
      section,
      title: text(section),
      views: views.filter((view) => view.section === section && maySee(view, session)),
    }))
    .filter((one) => one.views.length > 0);
}
