/** What the user is told about, and how. */
import { html, useState } from "../lib/html.js";
import { api } from "../lib/api.js";
import { dictionary } from "../lib/i18n.js";
import { useResource } from "../lib/resource.js";
import { Button } from "../ui/button.js";
import { Page } from "../ui/page.js";
import { Loaded } from "../ui/state.js";
import { toast } from "../ui/toast.js";

/** @typedef {{kind: string, in_app: boolean, email: boolean, webhook: boolean}} Preference */

const CHANNELS = /** @type {const} */ (["in_app", "email", "webhook"]);

const text = dictionary(
  {
    title: "Notification settings",
    intro: "Mails that you ask for yourself, such as for a new password, are always sent.",
    kind: "About",
    in_app: "In the list",
    email: "By mail",
    webhook: "By webhook",
    save: "Save",
    saved: "Saved",
    "user.registered": "Your new account",
    "order.created": "An order was placed",
    "order.confirmed": "An order was confirmed",
    "order.cancelled": "An order was cancelled",
    "order.shipped": "An order was shipped",
    "order.delivered": "An order was delivered",
    "payment.refunded": "A payment was refunded",
    "payment.partially_refunded": "A part of a payment was refunded",
    "inventory.stock_low": "The stock of a product is low",
  },
  {
    title: "Bildirim ayarları",
    intro: "Yeni parola gibi kendi istediğiniz e-postalar her zaman gönderilir.",
    kind: "Konu",
    in_app: "Listede",
    email: "E-postayla",
    webhook: "Webhook ile",
    save: "Kaydet",
    saved: "Kaydedildi",
    "user.registered": "Yeni hesabınız",
    "order.created": "Sipariş verildi",
    "order.confirmed": "Sipariş onaylandı",
    "order.cancelled": "Sipariş iptal edildi",
    "order.shipped": "Sipariş gönderildi",
    "order.delivered": "Sipariş teslim edildi",
    "payment.refunded": "Ödeme iade edildi",
    "payment.partially_refunded": "Ödemenin bir bölümü iade edildi",
    "inventory.stock_low": "Bir ürünün stoğu azaldı",
  },
);

export default function Preferences() {
  const stored = useResource((signal) => api.read("/users/me/notification-preferences", { signal }), []);
  return html`<${Page} title=${text("title")} intro=${text("intro")}>
    <${Loaded} resource=${stored} lines=${9}>
      ${(/** @type {import("../lib/http.js").Reply} */ read) => html`<${Edit} key=${read.etag} read=${read} onSaved=${stored.reload} />`}
    <//>
  <//>`;
}

/** @param {{read: import("../lib/http.js").Reply, onSaved: () => Promise<void>}} props */
function Edit({ read, onSaved }) {
  const [items, setItems] = useState(/** @type {Preference[]} */ (read.data.items));
  const set = (/** @type {string} */ kind, /** @type {"in_app" | "email" | "webhook"} */ channel) => (/** @type {any} */ event) =>
    setItems(items.map((one) => (one.kind === kind ? { ...one, [channel]: event.target.checked } : one)));
  const save = async () => {
    await api.put("/users/me/notification-preferences", { items }, read.etag);
    toast(text("saved"));
    await onSaved();
  };
  const isChanged = JSON.stringify(items) !== JSON.stringify(read.data.items);
  return html`<div class="stack">
    <div class="table-frame">
      <table class="table matrix">
        <thead>
          <tr>
            <th scope="col">${text("kind")}</th>
            ${CHANNELS.map((channel) => html`<th key=${channel} scope="col">${text(channel)}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${items.map((one) => {
            const name = text(/** @type {"order.created"} */ (one.kind));
            return html`<tr key=${one.kind}>
              <th scope="row">${name}</th>
              ${CHANNELS.map(
                (channel) => html`<td key=${channel} data-label=${text(channel)}>
                  <input type="checkbox" checked=${one[channel]} aria-label=${`${name}: ${text(channel)}`} onInput=${set(one.kind, channel)} />
                </td>`,
              )}
            </tr>`;
          })}
        </tbody>
      </table>
    </div>
    <div><${Button} kind="primary" disabled=${!isChanged} onClick=${save}>${text("save")}<//></div>
  </div>`;
}
