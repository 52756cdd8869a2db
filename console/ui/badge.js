/** The status of a thing as text on a tinted ground; the colour only repeats what the text says. */
import { html } from "../lib/html.js";
import { dictionary } from "../lib/i18n.js";

/** @typedef {"neutral" | "info" | "good" | "warn" | "bad"} Tone */

const text = dictionary(
  {
    CREATED: "Being decided",
    CONFIRMED: "Confirmed",
    SHIPPED: "Shipped",
    DELIVERED: "Delivered",
    CANCELLED: "Cancelled",
    PENDING: "Pending",
    RESERVED: "Reserved",
    FAILED: "Failed",
    COMMITTED: "Committed",
    RELEASED: "Released",
    RETURNED: "Returned",
    AUTHORIZED: "Authorised",
    CAPTURED: "Captured",
    VOIDED: "Voided",
    PARTIALLY_REFUNDED: "Partly refunded",
    REFUNDED: "Refunded",
    FIRST: "First entry",
    SET: "Set",
    ADJUSTED: "Adjusted",
    APPROVED: "Approved",
    DECLINED: "Declined",
    UNAVAILABLE: "Not available",
    REFUSED: "Refused",
    UNKNOWN: "Unknown",
    ERROR: "Error",
    SUCCEEDED: "Given back",
    OUT_OF_STOCK: "out of stock",
    PAYMENT_FAILED: "payment failed",
    TIMEOUT: "no answer in time",
    USER: "by the customer",
    ADMIN: "by an administrator",
  },
  {
    CREATED: "Karar bekliyor",
    CONFIRMED: "Onaylandı",
    SHIPPED: "Kargoda",
    DELIVERED: "Teslim edildi",
    CANCELLED: "İptal edildi",
    PENDING: "Bekliyor",
    RESERVED: "Ayrıldı",
    FAILED: "Başarısız",
    COMMITTED: "Düşüldü",
    RELEASED: "Geri bırakıldı",
    RETURNED: "İade edildi",
    AUTHORIZED: "Provizyon alındı",
    CAPTURED: "Tahsil edildi",
    VOIDED: "Provizyon iptal",
    PARTIALLY_REFUNDED: "Kısmen iade",
    REFUNDED: "İade edildi",
    FIRST: "İlk kayıt",
    SET: "Belirlendi",
    ADJUSTED: "Düzeltildi",
    APPROVED: "Onaylandı",
    DECLINED: "Geri çevrildi",
    UNAVAILABLE: "Ulaşılamadı",
    REFUSED: "Reddedildi",
    UNKNOWN: "Bilinmiyor",
    ERROR: "Hata",
    SUCCEEDED: "İade edildi",
    OUT_OF_STOCK: "stok yok",
    PAYMENT_FAILED: "ödeme başarısız",
    TIMEOUT: "zamanında yanıt yok",
    USER: "müşteri tarafından",
    ADMIN: "yönetici tarafından",
  },
);

/** @type {Record<string, Tone>} */
const TONES = {
  CREATED: "info",
  PENDING: "info",
  CONFIRMED: "good",
  SHIPPED: "good",
  DELIVERED: "good",
  RESERVED: "good",
  COMMITTED: "good",
  AUTHORIZED: "good",
  CAPTURED: "good",
  APPROVED: "good",
  SUCCEEDED: "good",
  DECLINED: "bad",
  UNAVAILABLE: "warn",
  REFUSED: "bad",
  UNKNOWN: "warn",
  ERROR: "bad",
  CANCELLED: "bad",
  FAILED: "bad",
  RELEASED: "neutral",
  RETURNED: "neutral",
  VOIDED: "neutral",
  PARTIALLY_REFUNDED: "warn",
  REFUNDED: "neutral",
};

/** @param {{tone?: Tone, children?: import("../lib/html.js").Children}} props */
export function Badge({ tone = "neutral", children }) {
  return html`<span class=${`badge ${tone}`}>${children}</span>`;
}

/** The status of an order, of its stock or of its payment. @param {{status: string, reason?: string | null}} props */
export function StatusBadge({ status, reason }) {
  const shown = reason ? `${statusText(status)}: ${statusText(reason)}` : statusText(status);
  return html`<${Badge} tone=${TONES[status] ?? "neutral"}>${shown}<//>`;
}

/**
 * The name of a status or of a reason for a cancellation. One that this page does not know is shown as it is.
 * @param {string} status
 */
export function statusText(status) {
  return text(/** @type {"CREATED"} */ (status));
}
