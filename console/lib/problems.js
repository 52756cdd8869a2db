/** What a problem means to the reader, and what to do. */
import { dictionary } from "./i18n.js";
import { language } from "./preferences.js";

const text = dictionary(
  {
    OFFLINE: "The gateway cannot be reached. What you see may be outdated. The page tries again by itself.",
    NO_RESPONSE: "The gateway did not respond in time. Try again in a moment.",
    PAGE_ERROR: "Something in this page went wrong. Reload the page; if that does not help, report the message: {detail}",
    UPSTREAM_TIMEOUT: "A part of the shop did not respond in time, so the outcome is unknown. Reload to see it.",
    NOT_AUTHENTICATED: "Sign in to see this.",
    other: "{detail}",
  },
  {
    OFFLINE: "Geçide ulaşılamıyor. Gördükleriniz eski olabilir. Sayfa kendiliğinden yeniden dener.",
    NO_RESPONSE: "Geçit zamanında yanıt vermedi. Birazdan yeniden deneyin.",
    PAGE_ERROR: "Bu sayfada bir hata oluştu. Sayfayı yenileyin; düzelmezse şu iletiyi bildirin: {detail}",
    UPSTREAM_TIMEOUT: "Mağazanın bir bölümü zamanında yanıt vermedi; sonuç bilinmiyor. Görmek için yenileyin.",
    NOT_AUTHENTICATED: "Bunu görmek için giriş yapın.",
    other: "{detail}",
  },
);

/** The messages of the API in Turkish, by code. In English the API's own detail is shown, which says more. */
const TURKISH = /** @type {Record<string, string>} */ ({
  VALIDATION_ERROR: "Bazı alanlar geçersiz.",
  INVALID_CREDENTIALS: "E-posta adresi ya da parola yanlış.",
  INVALID_TOKEN: "Oturum geçersiz. Yeniden giriş yapın.",
  TOKEN_REVOKED: "Oturum sona erdi. Yeniden giriş yapın.",
  PERMISSION_DENIED: "Bunun için yönetici rolü gerekir.",
  USER_INACTIVE: "Bu hesap devre dışı.",
  USER_ALREADY_EXISTS: "Bu e-posta adresiyle bir hesap var. Giriş yapın.",
  WEAK_PASSWORD: "Parola çok zayıf. Daha uzun ve tahmini zor bir parola seçin.",
  NOT_FOUND: "Burada bir şey yok.",
  ORDER_NOT_FOUND: "Böyle bir sipariş yok.",
  PRODUCT_NOT_FOUND: "Böyle bir ürün yok.",
  PRICE_CHANGED: "Fiyat değişti. Sepeti gözden geçirip yeniden sipariş verin.",
  PRODUCT_UNAVAILABLE: "Ürünlerden biri artık satılmıyor. Sepetten çıkarın.",
  INVALID_STATE: "Şu anki durumda bu yapılamaz.",
  STOCK_RESERVED: "Ayrılmış stok bundan fazla.",
  SKU_ALREADY_EXISTS: "Bu SKU başka bir ürünün.",
  PRECONDITION_FAILED: "Siz okuduktan sonra değişmiş. Yenileyip değişikliği tekrarlayın.",
  RATE_LIMITED: "Çok fazla istek. Biraz bekleyip yeniden deneyin.",
  SERVICE_UNAVAILABLE: "Mağazanın bir bölümü şu anda çalışmıyor. Birazdan yeniden deneyin.",
  INTERNAL_ERROR: "Bizim tarafımızda bir hata oluştu.",
});

const OURS = new Set(["OFFLINE", "NO_RESPONSE", "PAGE_ERROR", "UPSTREAM_TIMEOUT", "NOT_AUTHENTICATED"]);

/**
 * @param {import("./http.js").Problem} problem
 * @returns {string}
 */
export function problemText(problem) {
  const known = OURS.has(problem.code) ? /** @type {"OFFLINE"} */ (problem.code) : "other";
  const detail = language.value === "tr" ? (TURKISH[problem.code] ?? problem.message) : problem.message;
  return text(known, { detail });
}
