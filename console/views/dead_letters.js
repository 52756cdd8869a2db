/** Messages that could not be handled: by cause, then one by one. */
import {
  ago, api, asProblem, Badge, Button, ButtonLink, dateTime, dictionary, Empty, html, link, Loaded, number,
  Page, Results, shortId, Table, toastProblem, useResource, useState, word,
} from "../kit.js";
import { actOnGroup } from "../lib/dead_letters.js";
import { Cause, isWanted, LetterList, letterText } from "./dead_letter_list.js";

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
      : html`<${LetterList} key=${`${shown} ${query.group} ${query.order}`} query=${{ service: query.service, group: query.group, correlation_id: query.order, replayed: shown === "replayed" ? "true" : undefined }} />`}
  <//>`;
}

function Groups() {
  const groups = useResource((signal) => api.get("/admin/dead-letters/groups", {}, { signal }), [], { every: RENEWED_MS });
  const [results, setResults] = useState(/** @type {import("../lib/bulk.js").Result[] | null} */ (null));
  const act = async (/** @type {any} */ group, /** @type {import("../lib/dead_letters.js").Action} */ action) => {
    if (!(await isWanted(action, group.count))) return;
    try {
      setResults(await actOnGroup(action, group, setResults));
    } catch (error) {
      toastProblem(asProblem(error));
    }
    await groups.reload();
  };
  return html`<${Results} results=${results} label=${(/** @type {string} */ id) => html`<span class="id">${shortId(id)}</span>`} onClose=${() => setResults(null)} />
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
