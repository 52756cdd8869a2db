/** The views of administrators and operators. */
import { dictionary } from "./lib/i18n.js";

const text = dictionary(
  {
    adminOrder: "Order",
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
  },
  {
    adminOrder: "Sipariş",
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
  },
);

/** @type {import("./navigation.js").View[]} */
export const adminViews = [
  { path: "/admin/orders", title: () => text("adminOrders"), audience: "admin", section: "administration", load: () => import("./views/admin_orders.js") },
  { path: "/admin/orders/:id", title: () => text("adminOrder"), audience: "admin", load: () => import("./views/admin_order.js") },
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
