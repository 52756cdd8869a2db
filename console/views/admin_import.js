/** Importing products or stock from a file, with its progress and the rows that are wrong. */
import {
  Badge, ButtonLink, dictionary, Form, html, link, Loading, navigate, number, Page, Panel, place, Problem,
  ProblemBox, Select, Table, useState,
} from "../kit.js";
import { isOver, sendFile, useImport } from "../lib/import.js";

const text = dictionary(
  {
    products: "Import products",
    inventory: "Import stock",
    productsText: "A product is found by its SKU: it is created, or changed where the file states something. Columns: sku, name, price, description, is_active.",
    inventoryText: "Each row sets the quantity on hand. Columns: product_sku or product_id, quantity.",
    back: "Back to the list",
    file: "File",
    fileHint: "CSV with a header line (.csv) or JSON lines (.jsonl), up to 64 MiB",
    choose: "Choose a file first.",
    mode: "If a row is wrong",
    all_or_nothing: "change nothing",
    skip_bad: "leave out this row",
    send: "Import the file",
    sending: "Sending the file. Do not close this page yet.",
    progress: "Progress",
    errors: "Rows that are wrong",
    line: "Line",
    field: "Field",
    message: "What is wrong",
    staged: "Rows read",
    merged: "Rows done",
    created: "Created",
    updated: "Changed",
    unchanged: "Unchanged",
    failed: "Wrong",
    RECEIVING: "Receiving",
    QUEUED: "Waiting",
    VALIDATING: "Checking",
    MERGING: "Writing",
    DONE: "Done",
    REJECTED: "Nothing was changed, because rows are wrong",
    FAILED: "The service could not process it",
  },
  {
    products: "Ürünleri içe aktar",
    inventory: "Stok içe aktar",
    productsText: "Ürün SKU'su ile bulunur: yoksa eklenir, varsa dosyada yazanlar değişir. Sütunlar: sku, name, price, description, is_active.",
    inventoryText: "Her satır eldeki miktarı belirler. Sütunlar: product_sku ya da product_id, quantity.",
    back: "Listeye dön",
    file: "Dosya",
    fileHint: "Başlık satırlı CSV (.csv) ya da JSON satırları (.jsonl), en çok 64 MiB",
    choose: "Önce bir dosya seçin.",
    mode: "Bir satır yanlışsa",
    all_or_nothing: "hiçbir şeyi değiştirme",
    skip_bad: "o satırı atla",
    send: "Dosyayı içe aktar",
    sending: "Dosya gönderiliyor. Bu sayfayı henüz kapatmayın.",
    progress: "İlerleme",
    errors: "Yanlış satırlar",
    line: "Satır",
    field: "Alan",
    message: "Yanlış olan",
    staged: "Okunan satır",
    merged: "İşlenen satır",
    created: "Eklenen",
    updated: "Değişen",
    unchanged: "Aynı kalan",
    failed: "Yanlış",
    RECEIVING: "Alınıyor",
    QUEUED: "Bekliyor",
    VALIDATING: "Denetleniyor",
    MERGING: "Yazılıyor",
    DONE: "Bitti",
    REJECTED: "Yanlış satırlar olduğu için hiçbir şey değişmedi",
    FAILED: "Servis işleyemedi",
  },
);

const COUNTS = /** @type {const} */ (["staged", "merged", "created", "updated", "unchanged", "failed"]);

/** @param {{query: Record<string, string>}} props */
export default function AdminImport({ query }) {
  const kind = place.peek().path.startsWith("/admin/stock") ? "inventory" : "products";
  const here = kind === "products" ? "/admin/products" : "/admin/stock";
  const [isSending, setSending] = useState(false);
  const { progress, problem } = useImport(kind, query.id ?? "");
  const submit = async (/** @type {Record<string, any>} */ values) => {
    if (!values.file?.name) throw new Problem({ code: "NO_FILE", detail: text("choose") });
    setSending(true);
    try {
      const { id } = await sendFile(kind, values.file, values.mode);
      const isStillHere = place.peek().path === `${here}/import`;
      if (isStillHere) navigate(`${here}/import`, { id }, { replace: true });
    } finally {
      setSending(false);
    }
  };
  return html`<${Page} title=${text(kind)} intro=${text(/** @type {"productsText"} */ (`${kind}Text`))} actions=${html`<${ButtonLink} href=${link(here)}>${text("back")}<//>`}>
    <div class="two-columns">
      <${Form} class="panel" action=${text("send")} onSubmit=${submit}>
        <div class="field">
          <label for="file">${text("file")}</label>
          <input id="file" name="file" type="file" accept=".csv,.jsonl,.ndjson,text/csv" aria-describedby="file-hint" />
          <p id="file-hint" class="hint">${text("fileHint")}</p>
        </div>
        <${Select} name="mode" label=${text("mode")} options=${["all_or_nothing", "skip_bad"].map((value) => ({ value, label: text(/** @type {"skip_bad"} */ (value)) }))} />
        ${isSending && html`<p role="status">${text("sending")}</p>`}
      <//>
      ${query.id &&
      html`<${Panel} title=${text("progress")}>
        ${problem ? html`<${ProblemBox} problem=${problem} />` : progress ? html`<${Progress} progress=${progress} />` : html`<${Loading} lines=${4} />`}
      <//>`}
    </div>
    ${progress?.errors && progress.errors.length > 0 && html`<h2>${text("errors")}</h2><${Errors} rows=${progress.errors} />`}
  <//>`;
}

/** @param {{progress: import("../lib/import.js").Import}} props */
function Progress({ progress }) {
  const tone = { DONE: "good", REJECTED: "bad", FAILED: "bad" }[progress.status] ?? "info";
  return html`<p role="status"><${Badge} tone=${tone}>${text(/** @type {"DONE"} */ (progress.status))}<//></p>
    <progress class="progress" aria-label=${text("progress")} max=${Math.max(1, progress.staged)} value=${isOver(progress) ? Math.max(1, progress.staged) : progress.merged}></progress>
    <dl class="numbers">
      ${COUNTS.map((name) => html`<div key=${name}><dt>${text(name)}</dt><dd>${number(progress[name] ?? 0)}</dd></div>`)}
    </dl>`;
}

/** @param {{rows: any[]}} props */
function Errors({ rows }) {
  const numbered = rows.map((row, index) => ({ ...row, key: String(index) }));
  return html`<${Table} caption=${text("errors")} rows=${numbered} rowKey=${(/** @type {any} */ row) => row.key} columns=${columns()} />`;
}

const columns = () =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    { label: text("line"), align: "end", value: (row) => number(row.line) },
    { label: text("field"), value: (row) => html`<code>${row.field}</code>` },
    { label: text("message"), value: (row) => row.message },
  ]);
