/** The start of the console: the session, the layout, and the view of the present address. */
import { html, render, useEffect, useErrorBoundary, useSignal, useState } from "./lib/html.js";
import { asProblem, checkGateway, returns } from "./lib/http.js";
import { dictionary } from "./lib/i18n.js";
import { applyPreferences, language } from "./lib/preferences.js";
import { link, place } from "./lib/router.js";
import { hasExpired, isStarting, session, startSession } from "./lib/session.js";
import { Layout } from "./layout.js";
import { maySee, menu, viewAt } from "./navigation.js";
import { Button, ButtonLink } from "./ui/button.js";
import { Questions } from "./ui/dialog.js";
import { Page } from "./ui/page.js";
import { Palette } from "./ui/palette.js";
import { Loading, ProblemBox } from "./ui/state.js";
import { Toasts } from "./ui/toast.js";

const text = dictionary(
  {
    name: "Order suite",
    missing: "There is no such page",
    missingText: "The address may be mistyped, or from another version of the console.",
    home: "To the start",
    signIn: "Sign in",
    needsSignIn: "Sign in to see this page",
    expired: "Your session has ended. Sign in again; what you have entered in other places is kept.",
    forbidden: "This page is for administrators",
    forbiddenText: "Sign in with an account that has the admin role.",
    broken: "This page has failed",
    outdated: "A part of the page could not be loaded. There may be a new version: reload the page.",
    reload: "Reload",
  },
  {
    name: "Order suite",
    missing: "Böyle bir sayfa yok",
    missingText: "Adres yanlış yazılmış ya da konsolun başka bir sürümünden olabilir.",
    home: "Başa dön",
    signIn: "Giriş yap",
    needsSignIn: "Bu sayfayı görmek için giriş yapın",
    expired: "Oturumunuz sona erdi. Yeniden giriş yapın; başka yerlerde girdikleriniz korunur.",
    forbidden: "Bu sayfa yöneticiler içindir",
    forbiddenText: "Yönetici rolü olan bir hesapla giriş yapın.",
    broken: "Bu sayfa hata verdi",
    outdated: "Sayfanın bir bölümü yüklenemedi. Yeni bir sürüm olabilir: sayfayı yenileyin.",
    reload: "Yenile",
  },
);

/** @typedef {(props: any) => any} ViewFunction */

/**
 * Load the pages of the menu while there is nothing else to do, so that they open at once, also during an outage.
 * @param {import("./lib/session.js").Session | null} reader
 */
function preload(reader) {
  const idle = window.requestIdleCallback ?? setTimeout;
  idle(() => menu(reader).flatMap(({ views }) => views).forEach((view) => view.load().catch(() => undefined)));
}

function App() {
  const reader = useSignal(session);
  useEffect(() => preload(reader), [reader?.user.id]);
  useSignal(language); // every text depends on it
  return html`<${Layout}><${Outlet} /><//><${Questions} /><${Palette} /><${Toasts} />`;
}

function Outlet() {
  const here = useSignal(place);
  const current = useSignal(session);
  const starting = useSignal(isStarting);
  const found = viewAt(here.path);
  if (!found) {
    return html`<${Page} title=${text("missing")}>
      <p>${text("missingText")}</p>
      <p><${ButtonLink} href=${link("/")}>${text("home")}<//></p>
    <//>`;
  }
  if (starting && found.view.audience !== "anyone") {
    return html`<${Page} title=${found.view.title()}><${Loading} lines=${6} /><//>`;
  }
  if (!maySee(found.view, current)) return html`<${Closed} isSignedIn=${current !== null} />`;
  // Another user or another thing is another view: nothing of the one before may stay.
  const key = JSON.stringify([found.view.path, found.parameters, current?.user.id]);
  return html`<${LoadedView} key=${key} view=${found.view} parameters=${found.parameters} query=${here.query} />`;
}

/** @param {{isSignedIn: boolean}} props */
function Closed({ isSignedIn }) {
  const expired = useSignal(hasExpired);
  const here = useSignal(place);
  return html`<${Page} title=${isSignedIn ? text("forbidden") : text("needsSignIn")}>
    ${isSignedIn && html`<p>${text("forbiddenText")}</p>`} ${expired && html`<p role="alert">${text("expired")}</p>`}
    <p><${ButtonLink} kind="primary" href=${link("/sign-in", { next: here.path })}>${text("signIn")}<//></p>
  <//>`;
}

let hasShownView = false;

/** After a change of the view, screen readers and the keyboard continue at its heading; a dialog has closed by then. */
function focusHeading() {
  requestAnimationFrame(() => document.querySelector(/** @type {"h1"} */ ("main h1"))?.focus({ preventScroll: true }));
}

/** @param {{view: import("./navigation.js").View, parameters: Record<string, string>, query: Record<string, string>}} props */
function LoadedView({ view, parameters, query }) {
  const [View, setView] = useState(/** @type {ViewFunction | null} */ (null));
  const [isMissing, setMissing] = useState(false);
  const [error] = useErrorBoundary((problem) => console.error(problem));
  const returned = useSignal(returns);
  useEffect(() => {
    if (View) return;
    view.load().then((module) => {
      setMissing(false);
      setView(() => module.default);
    }, () => {
      setMissing(true);
      void checkGateway();
    });
  }, [returned]);
  useEffect(() => {
    document.title = `${view.title()} · ${text("name")}`;
    if (View) scrollTo(0, 0);
    if (View && hasShownView) focusHeading();
    hasShownView ||= View !== null;
  }, [View]);
  if (error || isMissing) return html`<${Broken} error=${error} />`;
  if (!View) return html`<${Page} title=${view.title()}><${Loading} lines=${6} /><//>`;
  return html`<${View} ...${parameters} query=${query} />`;
}

/** @param {{error: unknown}} props */
function Broken({ error }) {
  return html`<${Page} title=${text("broken")}>
    ${error ? html`<${ProblemBox} problem=${asProblem(error)} />` : html`<p role="alert">${text("outdated")}</p>`}
    <p><${Button} onClick=${() => location.reload()}>${text("reload")}<//></p>
  <//>`;
}

applyPreferences();
void startSession();
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
