/** One payment: each call of the provider, the refunds, and giving back all or a part of it. */
import {
  api, clock, confirm, dateTime, dictionary, duration, Facts, Field, Form, html, link, List, Loaded, money,
  Page, Panel, shortId, StatusBadge, toast, useLivePages, useResource, word,
} from "../kit.js";

const text = dictionary(
  {
    title: "Payment {id}",
    refunded: "Refunded",
    reference: "Reference of the provider",
    failure: "Why it failed",
    attempts: "Calls of the provider",
    noAttempts: "The provider has not been called yet",
    operation: "Operation",
    attempt: "Attempt",
    at: "At",
    took: "Took",
    outcome: "Outcome",
    detail: "Detail",
    refunds: "Refunds",
    noRefunds: "Nothing was given back",
    refund: "Refund",
    amountHint: "Empty: all that is left. With two places, such as 149.90",
    refundText: "{amount} goes back to the customer, who is told. This cannot be undone.",
    all: "All that is left",
    asked: "The refund is on its way to the provider",
    notNow: "Only a captured payment can be refunded. Cancel the order instead.",
    authorise: "Authorise",
    capture: "Capture",
    void: "Void",
  },
  {
    title: "Ödeme {id}",
    refunded: "İade edilen",
    reference: "Sağlayıcının referansı",
    failure: "Neden başarısız",
    attempts: "Sağlayıcı çağrıları",
    noAttempts: "Sağlayıcı henüz çağrılmadı",
    operation: "İşlem",
    attempt: "Deneme",
    at: "Zaman",
    took: "Süre",
    outcome: "Sonuç",
    detail: "Ayrıntı",
    refunds: "İadeler",
    noRefunds: "Hiçbir şey iade edilmedi",
    refund: "İade et",
    amountHint: "Boş: kalanın tümü. İki haneli, örneğin 149.90",
    refundText: "{amount} müşteriye geri gider ve müşteriye bildirilir. Bu geri alınamaz.",
    all: "Kalanın tümü",
    asked: "İade sağlayıcıya iletiliyor",
    notNow: "Yalnızca tahsil edilmiş ödeme iade edilebilir. Onun yerine siparişi iptal edin.",
    authorise: "Provizyon",
    capture: "Tahsilat",
    void: "Provizyon iptali",
  },
);

const RENEWED_MS = 5_000;

/** @param {{id: string}} props */
export default function AdminPayment({ id }) {
  const payment = useResource((signal) => api.get(`/payments/${id}`, {}, { signal }), [id], { every: RENEWED_MS });
  const attempts = useLivePages(`/payments/${id}/attempts`, { limit: 20 });
  const refunds = useLivePages(`/payments/${id}/refunds`, { limit: 20 });
  const reload = () => Promise.all([payment.reload(), attempts.reload(), refunds.reload()]);
  return html`<${Page} title=${text("title", { id: shortId(id) })}>
    <${Loaded} resource=${payment} lines=${8}>
      ${(/** @type {any} */ shown) => html`<div class="two-columns">
        <div class="stack">
          <${Summary} payment=${shown} />
          <h2>${text("attempts")}</h2>
          <${List} pages=${attempts} caption=${text("attempts")} none=${text("noAttempts")} columns=${attemptColumns()} lines=${3} rowKey=${(/** @type {any} */ row) => `${row.operation} ${row.at}`} />
          <h2>${text("refunds")}</h2>
          <${List} pages=${refunds} caption=${text("refunds")} none=${text("noRefunds")} columns=${refundColumns()} lines=${3} />
        </div>
        <${Refund} payment=${shown} onAsked=${reload} />
      </div>`}
    <//>
  <//>`;
}

/** @param {{payment: any}} props */
function Summary({ payment }) {
  return html`<div class="panel"><${Facts}
    items=${[
      [word("status"), html`<${StatusBadge} status=${payment.status} />`],
      [word("amount"), money(payment.amount, payment.currency)],
      [text("refunded"), money(payment.refunded_amount, payment.currency)],
      [word("order"), html`<a class="id" href=${link(`/admin/orders/${payment.order_id}`)}>${shortId(payment.order_id)}</a>`],
      [word("created"), dateTime(payment.created_at)],
      [text("reference"), html`<span class="id">${payment.transaction_reference ?? "–"}</span>`],
      ...(payment.failure_reason ? [[text("failure"), payment.failure_reason]] : []),
    ]}
  /></div>`;
}

/** @param {{payment: any, onAsked: () => Promise<unknown>}} props */
function Refund({ payment, onAsked }) {
  const canRefund = payment.status === "CAPTURED" || payment.status === "PARTIALLY_REFUNDED";
  const ask = async (/** @type {Record<string, string>} */ { amount, reason }) => {
    const stated = amount.trim();
    const shown = stated && !Number.isNaN(Number(stated)) ? money(stated, payment.currency) : stated || text("all");
    const isSure = await confirm({ title: text("refund"), body: text("refundText", { amount: shown }), action: text("refund"), isDestructive: true });
    if (!isSure) return;
    await api.post(`/payments/${payment.id}/refund`, stated ? { amount: stated, reason } : { reason });
    toast(text("asked"));
    await onAsked();
  };
  return html`<${Panel} title=${text("refund")}>
    ${canRefund
      ? html`<${Form} key=${payment.refunded_amount} action=${text("refund")} kind="danger" onSubmit=${ask}>
          <${Field} name="amount" label=${word("amount")} hint=${text("amountHint")} inputmode="decimal" />
          <${Field} name="reason" label=${word("reason")} required maxlength=${200} />
        <//>`
      : html`<p class="muted">${text("notNow")}</p>`}
  <//>`;
}

const attemptColumns = () =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    { label: text("at"), value: (row) => clock(row.at) },
    { label: text("operation"), value: (row) => text(row.operation) },
    { label: text("attempt"), align: "end", value: (row) => row.attempt },
    { label: text("outcome"), value: (row) => html`<${StatusBadge} status=${row.outcome} />` },
    { label: text("took"), align: "end", value: (row) => duration(row.duration_ms) },
    { label: text("detail"), value: (row) => row.detail ?? "–" },
  ]);

const refundColumns = () =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    { label: word("created"), value: (row) => dateTime(row.created_at) },
    { label: word("amount"), align: "end", value: (row) => money(row.amount, row.currency) },
    { label: word("status"), value: (row) => html`<${StatusBadge} status=${row.status} />` },
    { label: word("reason"), value: (row) => row.reason ?? "–" },
  ]);
