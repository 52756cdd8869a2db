/** Messages that could not be handled: by cause, then one by one. */
import { html, useState } from "../lib/html.js";
import { word } from "../lib/admin.js";
import { actOnGroup } from "../lib/dead_letters.js";
import { ago, dateTime, number } from "../lib/format.js";
import { asProblem } from "../lib/http.js";
import { dictionary } from "../lib/i18n.js";
import { useResource } from "../lib/resource.js";
import { api } from "../lib/api.js";
import { link } from "../lib/router.js";
import { Badge } from "../ui/badge.js";
import { Button, ButtonLink } from "../ui/button.js";
import { confirm } from "../ui/dialog.js";
import { Page } from "../ui/page.js";
import { Results } from "../ui/results.js";
import { Empty, Loaded } from "../ui/state.js";
import { Table } from "../ui/table.js";
import { toastProblem } from "../ui/toast.js";
import { Cause, LetterList, letterText } from "./dead_letter_list.js";

const text = dictionary(
  {
    title: "Dead letters",
    intro: "Messages that a service could not handle. A replay puts one back into the queue that it came from.",
    causes: "By cause",
    all: "All",
    replayed: "Replayed",
    none: "No dead letters",
    noneText: "Every message was handled.",
    count: "Number",
    again: "Failed again",
    newest: "Newest",
    oldest: "Oldest",
    replayTitle: { one: "Replay {count} message", other: "Replay all {count} messages" },
    discardTitle: { one: "Discard {count} message", other: "Discard all {count} messages" },
    replayText: "Each goes back into {queue}. A message that was handled already has no second effect. Mend the cause first: those that fail again come back here, with a mark.",
    discardText: "They are deleted, and the service {service} will never handle them. This cannot be undone.",
  },
  {
    title: "Dead letter'lar",
    intro: "Bir servisin işleyemediği mesajlar. Yeniden oynatma, mesajı geldiği kuyruğa geri koyar.",
    causes: "Nedene göre",
    all: "Tümü",
    replayed: "Yeniden oynatılanlar",
    none: "Dead letter yok",
    noneText: "Tüm mesajlar işlendi.",
    count: "Sayı",
    again: "Yine başarısız",
    newest: "En yeni",
    oldest: "En eski",
    replayTitle: "{count} mesajı yeniden oynat",
    discardTitle: "{count} mesajı sil",
    replayText: "Her biri {queue} kuyruğuna geri döner. İşlenmiş bir mesajın ikinci etkisi olmaz. Önce nedeni giderin: yine başarısız olanlar işaretlenip buraya döner.",
    discardText: "Silinirler ve {service} servisi onları hiç işlemez. Bu geri alınamaz.",
  },
);

const RENEWED_MS = 5_000;

/** @param {{query: Record<string, string>}} props */
export default function DeadLetters({ query }) {
  const shown = query.view ?? "causes";
  const tabs = /** @type {const} */ (["causes", "all", "replayed"]);
  return html`<${Page} title=${text("title")} intro=${text("intro")}>
    <nav class="tabs" aria-label=${text("title")}>
      ${tabs.map(
        (tab) => html`<a key=${tab} href=${link("/admin/dead-letters", { view: tab === "causes" ? "" : tab })} aria-current=${shown === tab ? "page" : undefined}>${text(tab)}</a>`,
      )}
    </nav>
    ${shown === "causes" && !query.group
      ? html`<${Groups} />`
      : html`<${LetterList} key=${`${shown} ${query.group}`} query=${{ service: query.service, group: query.group, replayed: shown === "replayed" ? "true" : undefined }} />`}
  <//>`;
}

function Groups() {
  const groups = useResource((signal) => api.get("/admin/dead-letters/groups", {}, { signal }), [], { every: RENEWED_MS });
  const [results, setResults] = useState(/** @type {import("../lib/bulk.js").Result[] | null} */ (null));
  const act = async (/** @type {any} */ group, /** @type {import("../lib/dead_letters.js").Action} */ action) => {
    const title = text(/** @type {"replayTitle"} */ (`${action}Title`), { count: group.count });
    const body = text(/** @type {"replayText"} */ (`${action}Text`), { queue: group.queue, service: group.service });
    if (!(await confirm({ title, body, action: title, isDestructive: action === "discard" }))) return;
    try {
      setResults(await actOnGroup(action, group, setResults));
    } catch (error) {
      toastProblem(asProblem(error));
    }
    await groups.reload();
  };
  return html`<${Results} results=${results} onClose=${() => setResults(null)} />
    <${Loaded} resource=${groups} lines=${8}>
      ${(/** @type {any} */ { items }) =>
        items.length
          ? html`<${Table} caption=${text("title")} rows=${items} columns=${columns()} rowKey=${(/** @type {any} */ row) => row.group}
              actions=${(/** @type {any} */ row) => html`<${ButtonLink} href=${address(row)}>${word("open")}<//>
                <${Button} onClick=${() => act(row, "replay")}>${letterText("replay")}<//>
                <${Button} kind="danger" onClick=${() => act(row, "discard")}>${letterText("discard")}<//>`} />`
          : html`<${Empty} title=${text("none")}><p>${text("noneText")}</p><//>`}
    <//>`;
}

/** @param {any} group */
const address = (group) => link("/admin/dead-letters", { group: group.group, service: group.service });

const columns = () =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    { label: text("count"), align: "end", value: (row) => html`<a href=${address(row)}>${number(row.count)}</a>` },
    { label: letterText("cause"), value: (row) => html`<${Cause} letter=${row} />` },
    { label: text("again"), align: "end", value: (row) => (row.failed_again ? html`<${Badge} tone="bad">${number(row.failed_again)}<//>` : "–") },
    { label: text("newest"), value: (row) => html`<span title=${`${text("oldest")}: ${dateTime(row.oldest_at)}`}>${ago(row.newest_at)}</span>` },
  ]);
