/** Dead letters one by one: select, replay, discard; and one of them with its message. */
import {
  ago, Badge, Button, confirm, dateTime, Dialog, dictionary, Facts, html, link, List, Results, SelectionBar,
  shortId, useLivePages, useState, word,
} from "../kit.js";
import { actOnIds, orderOf, traceOf } from "../lib/dead_letters.js";

const text = dictionary(
  {
    list: "Dead letters",
    replay: "Replay",
    discard: "Discard",
    again: "Failed again after a replay",
    forged: "Forged: cannot be replayed",
    waiting: "Waiting",
    wasReplayed: "Replayed {at}",
    cause: "Cause",
    message: "Message",
    when: "When",
    none: "No dead letters here",
    noneText: "They were replayed or discarded, or there were none.",
    title: "Dead letter {id}",
    origin: "Origin queue",
    messageId: "Message id",
    trace: "Trace id",
    request: "Request id",
    by: "Replayed by",
    payload: "Payload",
    headers: "Headers",
    hidden: "The payload can hold personal data. It is shown only when you ask for it.",
    show: "Show the payload",
    hide: "Hide the payload",
    replayTitle: { one: "Replay {count} message", other: "Replay {count} messages" },
    discardTitle: { one: "Discard {count} message", other: "Discard {count} messages" },
    replayText: "Each goes back into the queue that it came from. A message that was handled already has no second effect. Mend the cause first: those that fail again come back here, with a mark.",
    discardText: "They are deleted, and no service will ever handle them. This cannot be undone.",
  },
  {
    list: "Dead letter'lar",
    replay: "Yeniden oynat",
    discard: "Sil",
    again: "Yeniden oynatıldı, yine başarısız",
    forged: "Sahte: yeniden oynatılamaz",
    waiting: "Bekliyor",
    wasReplayed: "Yeniden oynatıldı: {at}",
    cause: "Neden",
    message: "Mesaj",
    when: "Zaman",
    none: "Burada dead letter yok",
    noneText: "Yeniden oynatıldılar ya da silindiler ya da hiç yoktu.",
    title: "Dead letter {id}",
    origin: "Geldiği kuyruk",
    messageId: "Mesaj kimliği",
    trace: "İz kimliği",
    request: "İstek kimliği",
    by: "Yeniden oynatan",
    payload: "İçerik",
    headers: "Başlıklar",
    hidden: "İçerikte kişisel veri olabilir. Yalnızca isterseniz gösterilir.",
    show: "İçeriği göster",
    hide: "İçeriği gizle",
    replayTitle: "{count} mesajı yeniden oynat",
    discardTitle: "{count} mesajı sil",
    replayText: "Her biri geldiği kuyruğa geri döner. İşlenmiş bir mesajın ikinci etkisi olmaz. Önce nedeni giderin: yine başarısız olanlar işaretlenip buraya döner.",
    discardText: "Silinirler ve hiçbir servis onları işlemez. Bu geri alınamaz.",
  },
);

const MASK = "•".repeat(48);

/** @param {"replay" | "discard" | "cause"} key */
export const letterText = (key) => text(key);

/**
 * Ask before a replay or a discard.
 * @param {import("../lib/dead_letters.js").Action} action
 * @param {number} count
 */
export function isWanted(action, count) {
  const title = text(/** @type {"replayTitle"} */ (`${action}Title`), { count });
  return confirm({ title, body: text(/** @type {"replayText"} */ (`${action}Text`)), action: title, isDestructive: action === "discard" });
}

/** Why, and where. @param {{letter: any}} props  a dead letter or a group of them */
export function Cause({ letter }) {
  return html`<div class="cause"><span class="error-text" title=${letter.error}>${letter.error}</span>
    <code class="muted">${letter.queue}</code>${letter.event && html` <span class="muted small">${letter.event}</span>`}</div>`;
}

/** @param {{query: {service?: string, group?: string, correlation_id?: string, replayed?: string}}} props */
export function LetterList({ query }) {
  const letters = useLivePages("/admin/dead-letters", { ...query, limit: 20 });
  const [selected, setSelected] = useState(/** @type {Set<string>} */ (new Set()));
  const [results, setResults] = useState(/** @type {import("../lib/bulk.js").Result[] | null} */ (null));
  const [opened, setOpened] = useState("");
  const act = async (/** @type {import("../lib/dead_letters.js").Action} */ action, /** @type {Set<string>} */ ids) => {
    if (!(await isWanted(action, ids.size))) return;
    setResults(await actOnIds(action, ids));
    setSelected(new Set());
    setOpened("");
    await letters.reload();
  };
  const canAct = query.replayed !== "true";
  const letter = letters.data?.find((one) => one.id === opened);
  return html`${canAct &&
    html`<${SelectionBar} selected=${selected} onClear=${() => setSelected(new Set())}>
      <${Button} disabled=${!selected.size} onClick=${() => act("replay", selected)}>${text("replay")}<//>
      <${Button} kind="danger" disabled=${!selected.size} onClick=${() => act("discard", selected)}>${text("discard")}<//>
    <//>`}
    <${Results} results=${results} label=${(/** @type {string} */ id) => html`<span class="id">${shortId(id)}</span>`} onClose=${() => setResults(null)} />
    <${List} pages=${letters} caption=${text("list")} columns=${columns(setOpened)} none=${text("none")} noneText=${text("noneText")}
      selected=${selected} onSelect=${canAct ? setSelected : undefined} rowLabel=${(/** @type {any} */ row) => shortId(row.id)} />
    ${letter && html`<${Letter} letter=${letter} onAct=${canAct ? act : undefined} onClose=${() => setOpened("")} />`}`;
}

/** @param {(id: string) => void} open */
const columns = (open) =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    {
      label: text("message"),
      value: (row) => html`<div><button type="button" class="link-button id" onClick=${() => open(row.id)}>${shortId(row.id)}</button>
        <div class="muted small" title=${dateTime(row.died_at)}>${ago(row.died_at)}</div></div>`,
    },
    { label: text("cause"), value: (row) => html`<${Cause} letter=${row} />` },
    { label: word("order"), value: (row) => html`<${OrderLink} letter=${row} />` },
    { label: word("tries"), align: "end", value: (row) => row.attempts },
    { label: word("status"), value: (row) => html`<${State} letter=${row} />` },
  ]);

/** @param {{letter: any}} props */
function OrderLink({ letter }) {
  const order = orderOf(letter);
  return order ? html`<a class="id" href=${link(`/admin/orders/${order}`)}>${shortId(order)}</a>` : "–";
}

/** @param {{letter: any}} props */
function State({ letter }) {
  if (letter.replayed_at) return html`<${Badge}>${text("wasReplayed", { at: dateTime(letter.replayed_at) })}<//>`;
  if (letter.is_forged) return html`<${Badge} tone="bad">${text("forged")}<//>`;
  if (letter.has_failed_again) return html`<${Badge} tone="bad">${text("again")}<//>`;
  return html`<${Badge}>${text("waiting")}<//>`;
}

/** @param {{letter: any, onAct?: (action: import("../lib/dead_letters.js").Action, ids: Set<string>) => Promise<void>, onClose: () => void}} props */
function Letter({ letter, onAct, onClose }) {
  const ids = new Set([letter.id]);
  const items = [
    [word("status"), html`<${State} letter=${letter} />`],
    [text("origin"), html`<code>${letter.queue}</code>`],
    [word("service"), letter.service],
    [word("event"), letter.event ?? "–"],
    [word("tries"), letter.attempts],
    [text("when"), dateTime(letter.died_at)],
    [word("order"), html`<${OrderLink} letter=${letter} />`],
    [text("messageId"), html`<span class="id">${letter.message_id ?? "–"}</span>`],
    [text("trace"), html`<span class="id">${traceOf(letter) || "–"}</span>`],
    [text("request"), html`<span class="id">${letter.headers["x-request-id"] ?? "–"}</span>`],
    ...(letter.replayed_by ? [[text("by"), html`<span class="id">${letter.replayed_by}</span>`]] : []),
  ];
  return html`<${Dialog} title=${text("title", { id: shortId(letter.id) })} onClose=${onClose} class="wide">
    <p class="bad-text">${letter.error}</p>
    <${Facts} items=${items} />
    <${Payload} letter=${letter} />
    ${onAct &&
    html`<footer class="dialog-actions">
      <${Button} disabled=${letter.is_forged} onClick=${() => onAct("replay", ids)}>${text("replay")}<//>
      <${Button} kind="danger" onClick=${() => onAct("discard", ids)}>${text("discard")}<//>
    </footer>`}
  <//>`;
}

/** @param {{letter: any}} props */
function Payload({ letter }) {
  const [isShown, setShown] = useState(false);
  return html`<div class="line">
      <h3>${text("payload")}</h3>
      <${Button} pressed=${isShown} onClick=${() => setShown(!isShown)}>${text(isShown ? "hide" : "show")}<//>
    </div>
    ${isShown
      ? html`<pre class="payload" tabindex="0">${pretty(letter.body)}</pre>
          <h3>${text("headers")}</h3>
          <pre class="payload" tabindex="0">${JSON.stringify(letter.headers, null, 2)}</pre>`
      : html`<p class="muted small">${text("hidden")}</p><p class="payload masked" aria-hidden="true">${MASK}</p>`}`;
}

/** JSON with indents; anything else as it is. @param {string} body */
function pretty(body) {
  try {
    return JSON.stringify(JSON.parse(body), null, 2);
  } catch {
    return body;
  }
}
