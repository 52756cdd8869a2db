/** All views: where they are, who sees them, and in which part of the navigation they stand. */
import { adminViews } from "./navigation_admin.js";
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
    notifications: "Notifications",
    preferences: "Notification settings",
    webhooks: "Webhooks",
    webhook: "Webhook endpoint",
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
    notifications: "Bildirimler",
    preferences: "Bildirim ayarları",
    webhooks: "Webhook'lar",
    webhook: "Webhook uç noktası",
    signIn: "Giriş yap",
    signUp: "Hesap aç",
  },
);

/** @type {View[]} */
export const views = [
  { path: "/live", title: () => text("start"), audience: "anyone", section: "shop", load: () => import("./views/live.js") },
  { path: "/products", title: () => text("products"), audience: "anyone", section: "shop", load: () => import("./views/products.js") },
  { path: "/cart", title: () => text("cart"), audience: "anyone", section: "shop", load: () => import("./views/cart.js") },
  { path: "/orders", title: () => text("orders"), audience: "user", section: "account", load: () => import("./views/orders.js") },
  { path: "/orders/:id", title: () => text("order"), audience: "user", load: () => import("./views/order.js") },
  { path: "/notifications", title: () => text("notifications"), audience: "user", section: "account", load: () => import("./views/notifications.js") },
  { path: "/preferences", title: () => text("preferences"), audience: "user", section: "account", load: () => import("./views/preferences.js") },
  { path: "/webhooks", title: () => text("webhooks"), audience: "user", section: "account", load: () => import("./views/webhooks.js") },
  { path: "/webhooks/:id", title: () => text("webhook"), audience: "user", load: () => import("./views/webhook.js") },
  { path: "/sign-in", title: () => text("signIn"), audience: "anyone", load: () => import("./views/sign_in.js") },
  { path: "/sign-up", title: () => text("signUp"), audience: "anyone", load: () => import("./views/sign_up.js") },
  ...adminViews,
];

/** @type {Section[]} */
const sections = ["shop", "account", "administration", "operation"];

export const HOME = "/live";

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
