/** The user's webhook endpoints: where the shop sends events to. */
import { html, useMemo, useState } from "../lib/html.js";
import { api, keyring } from "../lib/api.js";
import { dateTime } from "../lib/format.js";
import { dictionary } from "../lib/i18n.js";
import { usePages } from "../lib/resource.js";
import { link } from "../lib/router.js";
import { Badge } from "../ui/badge.js";
import { Button } from "../ui/button.js";
import { Dialog } from "../ui/dialog.js";
import { Field, Form } from "../ui/form.js";
import { Page } from "../ui/page.js";
import { Empty, Loaded } from "../ui/state.js";
import { More, Table } from "../ui/table.js";
import { toast } from "../ui/toast.js";

export const EVENTS = ["*", "order.*", "payment.*", "order.created", "order.confirmed", "order.cancelled", "order.shipped",
  "order.delivered", "payment.refunded", "payment.partially_refunded", "inventory.stock_low"];

const text = dictionary(
  {
    title: "Webhooks",
    intro: "The shop sends a signed POST request to these addresses when something happens to your orders.",
    add: "Add an endpoint",
    url: "Address",
    urlHint: "A public address that begins with https://",
    events: "Events",
    state: "State",
    created: "Added",
    none: "No endpoint yet",
    works: "Works",
    failing: "Failing since {at}",
    off: "Off: {reason}",
    save: "Add it",
    secret: "The secret of the endpoint",
    secretText: "It is shown only here and only now. Your endpoint checks the signature of each request with it.",
    copy: "Copy",
    copied: "Copied",
    done: "I have stored it",
    OWNER: "by you",
    GONE: "it responded that it is gone",
    FAILING: "all deliveries of five days failed",
    BACKLOG: "too many deliveries were waiting",
    NOT_ADMIN: "you are no administrator any more",
  },
  {
    title: "Webhook'lar",
    intro: "Siparişlerinizde bir şey olunca mağaza bu adreslere imzalı bir POST isteği gönderir.",
    add: "Uç nokta ekle",
    url: "Adres",
    urlHint: "https:// ile başlayan, herkese açık bir adres",
    events: "Olaylar",
    state: "Durum",
    created: "Eklendi",
    none: "Henüz uç nokta yok",
    works: "Çalışıyor",
    failing: "{at} tarihinden beri hata veriyor",
    off: "Kapalı: {reason}",
    save: "Ekle",
    secret: "Uç noktanın gizli anahtarı",
    secretText: "Yalnızca burada ve şimdi gösterilir. Uç noktanız her isteğin imzasını bununla denetler.",
    copy: "Kopyala",
    copied: "Kopyalandı",
    done: "Sakladım",
    OWNER: "sizin tarafınızdan",
    GONE: "artık olmadığını bildirdi",
    FAILING: "beş günün tüm teslimatları başarısız",
    BACKLOG: "çok fazla teslimat bekliyordu",
    NOT_ADMIN: "artık yönetici değilsiniz",
  },
);

export default function Webhooks() {
  const endpoints = usePages("/webhooks", { limit: 20 });
  const [isAdding, setAdding] = useState(false);
  const [secret, setSecret] = useState("");
  const added = (/** @type {any} */ endpoint) => {
    setAdding(false);
    setSecret(endpoint.secret);
    void endpoints.reload();
  };
  return html`<${Page} title=${text("title")} intro=${text("intro")} actions=${html`<${Button} kind="primary" onClick=${() => setAdding(true)}>${text("add")}<//>`}>
    <${Loaded} resource=${endpoints} empty=${html`<${Empty} title=${text("none")} />`}>
      ${(/** @type {any[]} */ rows) => html`<${Table}
        caption=${text("title")}
        rows=${rows}
        rowKey=${(/** @type {any} */ row) => row.id}
        columns=${[
          { label: text("url"), value: (/** @type {any} */ row) => html`<a href=${link(`/webhooks/${row.id}`)}>${row.url}</a>` },
          { label: text("events"), value: (/** @type {any} */ row) => row.events.join(", ") },
          { label: text("state"), value: (/** @type {any} */ row) => html`<${EndpointState} endpoint=${row} />` },
          { label: text("created"), value: (/** @type {any} */ row) => dateTime(row.created_at) },
        ]}
      />`}
    <//>
    <${More} pages=${endpoints} />
    ${isAdding && html`<${Add} onClose=${() => setAdding(false)} onAdded=${added} />`}
    ${secret && html`<${Secret} secret=${secret} onClose=${() => setSecret("")} />`}
  <//>`;
}

/** @param {{endpoint: any}} props */
export function EndpointState({ endpoint }) {
  if (!endpoint.is_enabled) {
    const reason = endpoint.disabled_reason ? text(endpoint.disabled_reason) : "";
    return html`<${Badge}>${text("off", { reason })}<//>`;
  }
  if (endpoint.failing_since) return html`<${Badge} tone="bad">${text("failing", { at: dateTime(endpoint.failing_since) })}<//>`;
  return html`<${Badge} tone="good">${text("works")}<//>`;
}

/** @param {{onClose: () => void, onAdded: (endpoint: any) => void}} props */
function Add({ onClose, onAdded }) {
  const keyFor = useMemo(keyring, []);
  const submit = async (/** @type {Record<string, string>} */ values, /** @type {string[]} */ events) => {
    const body = { url: values.url, events };
    onAdded(await api.post("/webhooks", body, { key: keyFor(body) }));
  };
  return html`<${Dialog} title=${text("add")} onClose=${onClose}>
    <${EndpointForm} action=${text("save")} url="" events=${["*"]} onSubmit=${submit} />
  <//>`;
}

/**
 * The address and the events of an endpoint.
 * @param {{action: string, url: string, events: string[], onSubmit: (values: Record<string, string>, events: string[]) => unknown}} props
 */
export function EndpointForm({ action, url, events, onSubmit }) {
  const [chosen, setChosen] = useState(events);
  const toggle = (/** @type {string} */ name) => (/** @type {any} */ event) =>
    setChosen(event.target.checked ? [...chosen, name] : chosen.filter((one) => one !== name));
  return html`<${Form} action=${action} onSubmit=${(/** @type {Record<string, string>} */ values) => onSubmit(values, chosen)}>
    <${Field} name="url" type="url" label=${text("url")} hint=${text("urlHint")} value=${url} required />
    <fieldset class="choices-of-events">
      <legend>${text("events")}</legend>
      ${EVENTS.map(
        (name) => html`<label key=${name} class="checkbox">
          <input type="checkbox" checked=${chosen.includes(name)} onInput=${toggle(name)} /><code>${name}</code>
        </label>`,
      )}
    </fieldset>
  <//>`;
}

/** @param {{secret: string, onClose: () => void}} props */
export function Secret({ secret, onClose }) {
  const copy = async () => {
    await navigator.clipboard.writeText(secret);
    toast(text("copied"));
  };
  return html`<${Dialog} title=${text("secret")} onClose=${onClose}>
    <p>${text("secretText")}</p>
    <p><code class="secret">${secret}</code></p>
    <footer class="dialog-actions">
      ${navigator.clipboard && html`<${Button} onClick=${copy}>${text("copy")}<//>`}
      <${Button} kind="primary" onClick=${onClose}>${text("done")}<//>
    </footer>
  <//>`;
}
