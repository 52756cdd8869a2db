/** In development: freeze a service or end its process, and see what goes on. The supervisor of `make run` does it. */
import { html, useEffect, useSignal, useState } from "../lib/html.js";
import { dictionary } from "../lib/i18n.js";
import { Problem } from "../lib/http.js";
import { accessToken, browserState } from "../lib/session.js";
import { Badge } from "../ui/badge.js";
import { Button } from "../ui/button.js";
import { Panel } from "../ui/page.js";

/** @typedef {{service: string, state: "running" | "frozen" | "down", restarts: number}} Process */

const EVERY_MS = 2000;
const DEADLINE_MS = 5000;
const TONES = /** @type {const} */ ({ running: "good", frozen: "warn", down: "bad" });

const text = dictionary(
  {
    title: "Break something",
    intro: "Freeze a service, or end its process. Orders wait, and go on when it is back. A frozen service goes on by itself after a minute.",
    running: "Running",
    frozen: "Frozen",
    down: "Down",
    freeze: "Freeze",
    thaw: "Go on",
    kill: "Kill",
    away: "The supervisor of make run does not respond.",
  },
  {
    title: "Bir şey bozun",
    intro: "Bir servisi dondurun ya da sürecini sonlandırın. Siparişler bekler, servis dönünce sürer. Donan servis bir dakika sonra kendiliğinden sürer.",
    running: "Çalışıyor",
    frozen: "Donuk",
    down: "Kapalı",
    freeze: "Dondur",
    thaw: "Sürdür",
    kill: "Sonlandır",
    away: "make run'ın denetçisi yanıt vermiyor.",
  },
);

/**
 * @param {string} url
 * @param {unknown} [body]
 * @returns {Promise<Process[]>}
 */
async function ask(url, body) {
  const headers = { Authorization: `Bearer ${await accessToken()}`, "Content-Type": "application/json" };
  const options = body === undefined ? { headers } : { headers, method: "POST", body: JSON.stringify(body) };
  try {
    const response = await fetch(`${url}/services`, { ...options, signal: AbortSignal.timeout(DEADLINE_MS) });
    if (response.ok) return (await response.json()).items;
  } catch {
    // the reader gets the same message
  }
  throw new Problem({ code: "SUPERVISOR", detail: text("away") });
}

export function Faults() {
  const url = useSignal(browserState).supervisor_url;
  const [processes, setProcesses] = useState(/** @type {Process[]} */ ([]));
  const load = async () => setProcesses(await ask(/** @type {string} */ (url)));
  useEffect(() => {
    if (!url) return undefined;
    load().catch(() => setProcesses([]));
    const timer = setInterval(() => document.hidden || load().catch(() => setProcesses([])), EVERY_MS);
    return () => clearInterval(timer);
  }, [url]);
  if (!url) return null;
  const act = (/** @type {string} */ service, /** @type {string} */ action) => async () => setProcesses(await ask(url, { service, action }));
  return html`<${Panel} title=${text("title")}>
    <p class="muted small">${text("intro")}</p>
    <ul class="faults">
      ${processes.map(
        ({ service, state }) => html`<li key=${service}>
          <span>${service}</span>
          <${Badge} tone=${TONES[state]}>${text(state)}<//>
          <span class="actions">
            ${state === "frozen"
              ? html`<${Button} onClick=${act(service, "thaw")}>${text("thaw")}<span class="visually-hidden"> ${service}</span><//>`
              : html`<${Button} disabled=${state === "down"} onClick=${act(service, "freeze")}>${text("freeze")}<span class="visually-hidden"> ${service}</span><//>`}
            <${Button} kind="danger" disabled=${state === "down"} onClick=${act(service, "kill")}>${text("kill")}<span class="visually-hidden"> ${service}</span><//>
          </span>
        </li>`,
      )}
    </ul>
  <//>`;
}
