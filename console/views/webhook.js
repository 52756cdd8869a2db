/** One webhook endpoint: its settings, its deliveries, and what can be done about those that failed. */
import { html, useState } from "../lib/html.js";
import { api } from "../lib/api.js";
import { dateTime, duration } from "../lib/format.js";
import { dictionary } from "../lib/i18n.js";
import { usePages, useResource } from "../lib/resource.js";
import { navigate } from "../lib/router.js";
import { Badge } from "../ui/badge.js";
import { Button } from "../ui/button.js";
import { confirm, Dialog } from "../ui/dialog.js";
import { Field, Form, Select } from "../ui/form.js";
import { Facts, Page, Panel } from "../ui/page.js";
import { Empty, Loaded } from "../ui/state.js";
import { More, Table } from "../ui/table.js";
import { toast } from "../ui/toast.js";
import { EndpointForm, EndpointState, Secret } from "./webhooks.js";

const text = dictionary(
  {
    title: "Webhook endpoint",
    state: "State",
    added: "Added",
    scope: "Events of",
    OWN: "your own orders",
    SHOP: "the whole shop",
    settings: "Settings",
    save: "Save",
    saved: "Saved",
    on: "Switch on",
    off: "Switch off",
    test: "Send a test",
    tested: "A test is on its way; its delivery is in the list",
    rotate: "New secret",
    rotateText: "For a day, deliveries are signed with the old and the new secret, so that your endpoint can change over.",
    remove: "Delete the endpoint",
    removeText: "Its deliveries are deleted, too. This cannot be undone.",
    deliveries: "Deliveries",
    all: "All",
    event: "Event",
    attempts: "Attempts",
    last: "Last attempt",
    response: "Response",
    none: "No deliveries here",
    retry: "Try again",
    retried: "It is tried again now",
    details: "Details",
    error: "Error",
    next: "Next attempt",
    took: "Took",
    body: "Response body",
    replay: "Send earlier events again",
    since: "Since",
    until: "Until",
    send: "Send again",
    replayed: { one: "{count} delivery is due now", other: "{count} deliveries are due now" },
    PENDING: "Waiting",
    DELIVERED: "Delivered",
    FAILED: "Failed",
  },
  {
    title: "Webhook uç noktası",
    state: "Durum",
    added: "Eklendi",
    scope: "Kimin olayları",
    OWN: "kendi siparişleriniz",
    SHOP: "tüm mağaza",
    settings: "Ayarlar",
    save: "Kaydet",
    saved: "Kaydedildi",
    on: "Aç",
    off: "Kapat",
    test: "Deneme gönder",
    tested: "Deneme yolda; teslimatı listede",
    rotate: "Yeni anahtar",
    rotateText: "Bir gün boyunca teslimatlar eski ve yeni anahtarla imzalanır; uç noktanız bu sürede geçiş yapabilir.",
    remove: "Uç noktayı sil",
    removeText: "Teslimatları da silinir. Bu geri alınamaz.",
    deliveries: "Teslimatlar",
    all: "Tümü",
    event: "Olay",
    attempts: "Deneme",
    last: "Son deneme",
    response: "Yanıt",
    none: "Burada teslimat yok",
    retry: "Yeniden dene",
    retried: "Şimdi yeniden deneniyor",
    details: "Ayrıntılar",
    error: "Hata",
    next: "Sonraki deneme",
    took: "Süre",
    body: "Yanıt gövdesi",
    replay: "Eski olayları yeniden gönder",
    since: "Başlangıç",
    until: "Bitiş",
    send: "Yeniden gönder",
    replayed: "{count} teslimat şimdi gönderilecek",
    PENDING: "Bekliyor",
    DELIVERED: "Teslim edildi",
    FAILED: "Başarısız",
  },
);

const TONES = /** @type {const} */ ({ PENDING: "info", DELIVERED: "good", FAILED: "bad" });

/** @param {{id: string, query: Record<string, string>}} props */
export default function Webhook({ id, query }) {
  const path = `/webhooks/${id}`;
  const endpoint = useResource((signal) => api.read(path, { signal }), [id]);
  const deliveries = usePages(`${path}/deliveries`, { state: query.state, limit: 20 }, { every: 5000 });
  const [secret, setSecret] = useState("");
  return html`<${Page} title=${text("title")} intro=${endpoint.data?.data.url}>
    <${Loaded} resource=${endpoint} lines=${6}>
      ${(/** @type {import("../lib/http.js").Reply} */ { data, etag }) => html`<div class="two-columns">
        <${Deliveries} id=${id} query=${query} deliveries=${deliveries} />
        <div class="stack">
          <${Overview} endpoint=${data} onChange=${endpoint.reload} onSecret=${setSecret} onTest=${deliveries.reload} />
          <${Settings} key=${etag} endpoint=${data} etag=${etag} onSaved=${endpoint.reload} />
          <${Replay} id=${id} onSent=${deliveries.reload} />
        </div>
      </div>`}
    <//>
    ${secret && html`<${Secret} secret=${secret} onClose=${() => setSecret("")} />`}
  <//>`;
}

/** @param {{endpoint: any, onChange: () => Promise<void>, onSecret: (secret: string) => void, onTest: () => Promise<void>}} props */
function Overview({ endpoint, onChange, onSecret, onTest }) {
  const path = `/webhooks/${endpoint.id}`;
  const test = async () => {
    await api.post(`${path}/test`);
    toast(text("tested"), "info");
    await onTest();
  };
  const turn = async () => {
    await api.patch(path, { is_enabled: !endpoint.is_enabled });
    await onChange();
  };
  const rotate = async () => {
    if (!(await confirm({ title: text("rotate"), body: text("rotateText"), action: text("rotate") }))) return;
    onSecret((await api.post(`${path}/rotate-secret`)).secret);
  };
  const remove = async () => {
    const question = { title: text("remove"), body: text("removeText"), action: text("remove"), isDestructive: true };
    if (!(await confirm(question))) return;
    await api.delete(path);
    navigate("/webhooks");
  };
  return html`<div class="panel">
    <${Facts}
      items=${[
        [text("state"), html`<${EndpointState} endpoint=${endpoint} />`],
        [text("scope"), text(endpoint.scope)],
        [text("added"), dateTime(endpoint.created_at)],
      ]}
    />
    <div class="actions">
      <${Button} disabled=${!endpoint.is_enabled} onClick=${test}>${text("test")}<//>
      <${Button} onClick=${rotate}>${text("rotate")}<//>
      <${Button} onClick=${turn}>${text(endpoint.is_enabled ? "off" : "on")}<//>
      <${Button} kind="danger" onClick=${remove}>${text("remove")}<//>
    </div>
  </div>`;
}

/** @param {{endpoint: any, etag: string | null, onSaved: () => Promise<void>}} props */
function Settings({ endpoint, etag, onSaved }) {
  const save = async (/** @type {Record<string, string>} */ values, /** @type {string[]} */ events) => {
    await api.patch(`/webhooks/${endpoint.id}`, { url: values.url, events }, etag);
    toast(text("saved"));
    await onSaved();
  };
  return html`<${Panel} title=${text("settings")}>
    <${EndpointForm} action=${text("save")} url=${endpoint.url} events=${endpoint.events} onSubmit=${save} />
  <//>`;
}

/** @param {{id: string, onSent: () => Promise<void>}} props */
function Replay({ id, onSent }) {
  const send = async (/** @type {Record<string, string>} */ values) => {
    const times = Object.entries(values).filter(([, value]) => value);
    const body = Object.fromEntries(times.map(([name, value]) => [name, new Date(value).toISOString()]));
    const { scheduled } = await api.post(`/webhooks/${id}/replay`, body);
    toast(text("replayed", { count: scheduled }));
    await onSent();
  };
  return html`<${Panel} title=${text("replay")}>
    <${Form} action=${text("send")} kind="plain" onSubmit=${send}>
      <${Field} name="since" type="datetime-local" label=${text("since")} required />
      <${Field} name="until" type="datetime-local" label=${text("until")} />
    <//>
  <//>`;
}

/** @param {{id: string, query: Record<string, string>, deliveries: any}} props */
function Deliveries({ id, query, deliveries }) {
  const [shown, setShown] = useState(/** @type {any} */ (null));
  const states = ["PENDING", "DELIVERED", "FAILED"];
  const options = [{ value: "", label: text("all") }, ...states.map((value) => ({ value, label: text(/** @type {"FAILED"} */ (value)) }))];
  const choose = (/** @type {string} */ state) => navigate(`/webhooks/${id}`, { state }, { replace: true });
  const retry = async (/** @type {any} */ delivery) => {
    await api.post(`/webhooks/deliveries/${delivery.id}/retry`);
    toast(text("retried"), "info");
    await deliveries.reload();
  };
  return html`<div class="stack">
    <div class="filters"><${Select} name="state" label=${text("deliveries")} value=${query.state ?? ""} options=${options} onInput=${choose} /></div>
    <${Loaded} resource=${deliveries} lines=${6} empty=${html`<${Empty} title=${text("none")} />`}>
      ${(/** @type {any[]} */ rows) => html`<${Table}
        caption=${text("deliveries")}
        rows=${rows}
        rowKey=${(/** @type {any} */ row) => row.id}
        columns=${[
          { label: text("event"), value: (/** @type {any} */ row) => row.event },
          { label: text("state"), value: (/** @type {any} */ row) => html`<${DeliveryState} delivery=${row} />` },
          { label: text("response"), value: (/** @type {any} */ row) => row.response_status ?? row.error ?? "" },
          { label: text("attempts"), align: "end", value: (/** @type {any} */ row) => row.attempts },
          { label: text("last"), value: (/** @type {any} */ row) => (row.last_attempt_at ? dateTime(row.last_attempt_at) : "") },
        ]}
        actions=${(/** @type {any} */ row) => html`<${Button} onClick=${() => setShown(row)}>${text("details")}<//>
          <${Button} onClick=${() => retry(row)}>${text("retry")}<//>`}
      />`}
    <//>
    <${More} pages=${deliveries} />
    ${shown && html`<${Details} delivery=${shown} onClose=${() => setShown(null)} />`}
  </div>`;
}

/** @param {{delivery: any}} props */
function DeliveryState({ delivery }) {
  const state = /** @type {"FAILED"} */ (delivery.state);
  return html`<${Badge} tone=${TONES[state]}>${text(state)}<//>`;
}

/** @param {{delivery: any, onClose: () => void}} props */
function Details({ delivery, onClose }) {
  const items = [
    [text("state"), html`<${DeliveryState} delivery=${delivery} />`],
    [text("attempts"), delivery.attempts],
    [text("response"), delivery.response_status ?? ""],
    [text("took"), delivery.duration_ms === null ? "" : duration(delivery.duration_ms)],
    [text("next"), delivery.next_attempt_at ? dateTime(delivery.next_attempt_at) : ""],
    [text("error"), delivery.error ?? ""],
  ];
  return html`<${Dialog} title=${delivery.event} onClose=${onClose} class="wide">
    <${Facts} items=${items} />
    ${delivery.response_body && html`<h3>${text("body")}</h3><pre class="payload" tabindex="0">${delivery.response_body}</pre>`}
  <//>`;
}
