/** What the shop has told the user, newest first. New ones appear at the top. */
import { html, useEffect, useSignal } from "../lib/html.js";
import { api } from "../lib/api.js";
import { ago, dateTime } from "../lib/format.js";
import { dictionary } from "../lib/i18n.js";
import { arrived, countUnread, unread } from "../lib/inbox.js";
import { usePages } from "../lib/resource.js";
import { link } from "../lib/router.js";
import { Badge } from "../ui/badge.js";
import { Button, ButtonLink } from "../ui/button.js";
import { Page } from "../ui/page.js";
import { Empty, Loaded } from "../ui/state.js";
import { More } from "../ui/table.js";

/** @typedef {import("../lib/inbox.js").Notification} Notification */

const AT_ONCE = 4;

const text = dictionary(
  {
    title: "Notifications",
    none: "Nothing yet",
    noneText: "You will be told here about your orders.",
    isNew: "New",
    read: "Mark as read",
    readAll: "Mark all as read",
    order: "To the order",
    settings: "Settings",
  },
  {
    title: "Bildirimler",
    none: "Henüz bir şey yok",
    noneText: "Siparişlerinizle ilgili gelişmeler burada bildirilir.",
    isNew: "Yeni",
    read: "Okundu say",
    readAll: "Tümünü okundu say",
    order: "Siparişe git",
    settings: "Ayarlar",
  },
);

export default function Notifications() {
  const list = usePages("/notifications", { limit: 20 });
  const news = useSignal(arrived);
  const count = useSignal(unread);
  useEffect(() => {
    if (news && !list.data?.some((one) => one.id === news.id)) list.change((items) => [news, ...items]);
  }, [news]);
  const read = async (/** @type {Notification[]} */ chosen) => {
    for (let start = 0; start < chosen.length; start += AT_ONCE) {
      await Promise.all(chosen.slice(start, start + AT_ONCE).map((one) => api.post(`/notifications/${one.id}/read`)));
    }
    const ids = new Set(chosen.map((one) => one.id));
    list.change((items) => items.map((one) => (ids.has(one.id) ? { ...one, status: "READ" } : one)));
    await countUnread();
  };
  const open = (list.data ?? []).filter((one) => one.status === "SENT");
  const actions = html`<${ButtonLink} href=${link("/preferences")}>${text("settings")}<//>
    <${Button} disabled=${!open.length || !count} onClick=${() => read(open)}>${text("readAll")}<//>`;
  return html`<${Page} title=${text("title")} actions=${actions}>
    <${Loaded} resource=${list} lines=${8} empty=${html`<${Empty} title=${text("none")}><p>${text("noneText")}</p><//>`}>
      ${(/** @type {Notification[]} */ items) => html`<ul class="plain-list">
        ${items.map((one) => html`<${One} key=${one.id} notification=${one} onRead=${() => read([one])} />`)}
      </ul>`}
    <//>
    <${More} pages=${list} />
  <//>`;
}

/** @param {{notification: Notification, onRead: () => Promise<void>}} props */
function One({ notification, onRead }) {
  const isNew = notification.status === "SENT";
  return html`<li class="card notification">
    <div class="line">
      <h2>${notification.subject}</h2>
      <time class="muted small" datetime=${notification.created_at} title=${dateTime(notification.created_at)}>${ago(notification.created_at)}</time>
    </div>
    <p>${notification.body}</p>
    <div class="line notification-end">
      <span>${isNew && html`<${Badge} tone="info">${text("isNew")}<//>`}</span>
      <span class="actions">
        ${notification.order_id && html`<a href=${link(`/orders/${notification.order_id}`)}>${text("order")}</a>`}
        ${isNew && html`<${Button} onClick=${onRead}>${text("read")}<//>`}
      </span>
    </div>
  </li>`;
}
