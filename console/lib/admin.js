/** What the pages of administrators share: common words, and lists that renew themselves. */
import { useState } from "./html.js";
import { dictionary } from "./i18n.js";
import { usePages } from "./resource.js";

export const word = dictionary(
  {
    all: "All",
    status: "Status",
    reason: "Reason",
    order: "Order",
    customer: "Customer",
    product: "Product",
    payment: "Payment",
    amount: "Amount",
    total: "Total",
    created: "Created",
    changed: "Changed",
    refresh: "Refresh",
    save: "Save",
    saved: "Saved",
    open: "Open",
    search: "Search",
    service: "Service",
    event: "Event",
    queue: "Queue",
    error: "Error",
    tries: "Tries",
    export: "Export as CSV",
    import: "Import",
    capped: "The file has the first {count} rows. Narrow the filter for the rest.",
  },
  {
    all: "Tümü",
    status: "Durum",
    reason: "Neden",
    order: "Sipariş",
    customer: "Müşteri",
    product: "Ürün",
    payment: "Ödeme",
    amount: "Tutar",
    total: "Toplam",
    created: "Oluşturuldu",
    changed: "Değişti",
    refresh: "Yenile",
    save: "Kaydet",
    saved: "Kaydedildi",
    open: "Aç",
    search: "Ara",
    service: "Servis",
    event: "Olay",
    queue: "Kuyruk",
    error: "Hata",
    tries: "Deneme",
    export: "CSV olarak indir",
    import: "İçe aktar",
    capped: "Dosyada ilk {count} satır var. Kalanı için süzgeci daraltın.",
  },
);

const RENEWED_MS = 5_000;

/**
 * A list that renews its first page by itself, until the reader has asked for more pages.
 * @param {string} path
 * @param {import("./api.js").Query} query
 */
export function useLivePages(path, query) {
  const key = JSON.stringify([path, query]);
  const [long, setLong] = useState("");
  const pages = usePages(path, query, { every: long === key ? 0 : RENEWED_MS });
  const loadMore = async () => {
    setLong(key);
    await pages.loadMore();
  };
  return { ...pages, loadMore };
}
