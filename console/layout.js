/** What is around every view: header, navigation, and the choices of the reader. */
import { html, useEffect, useSignal, useState } from "./lib/html.js";
import { dictionary } from "./lib/i18n.js";
import { chooseLanguage, chooseTheme, language, theme } from "./lib/preferences.js";
import { link, navigate, place } from "./lib/router.js";
import { isStarting, session, signOut } from "./lib/session.js";
import { cartCount } from "./lib/cart.js";
import { MOST_COUNTED, unread, watchInbox } from "./lib/inbox.js";
import { menu, viewAt } from "./navigation.js";
import { Button, ButtonLink } from "./ui/button.js";
import { openPalette } from "./ui/palette.js";
import { OfflineBanner } from "./ui/state.js";
import { Icon } from "./ui/icon.js";

const text = dictionary(
  {
    name: "Order suite",
    skip: "Skip to the content",
    navigation: "Navigation",
    menu: "Menu",
    search: "Commands",
    theme: "Appearance",
    system: "As the device",
    light: "Light",
    dark: "Dark",
    language: "Language",
    signIn: "Sign in",
    signOut: "Sign out",
    bell: { one: "Notifications, {count} unread", other: "Notifications, {count} unread" },
    cart: { one: "Cart, {count} unit", other: "Cart, {count} units" },
  },
  {
    name: "Order suite",
    skip: "İçeriğe geç",
    navigation: "Gezinme",
    menu: "Menü",
    search: "Komutlar",
    theme: "Görünüm",
    system: "Cihaz gibi",
    light: "Açık",
    dark: "Koyu",
    language: "Dil",
    signIn: "Giriş yap",
    signOut: "Çıkış yap",
    bell: "Bildirimler, {count} okunmamış",
    cart: "Sepet, {count} adet",
  },
);

/** @param {{children: import("./lib/html.js").Children}} props */
export function Layout({ children }) {
  const here = useSignal(place);
  const [isOpen, setOpen] = useState(false);
  useEffect(() => setOpen(false), [here.path]);
  const skip = (/** @type {Event} */ event) => {
    event.preventDefault();
    document.querySelector(/** @type {"h1"} */ ("main h1"))?.focus();
  };
  return html`<a class="skip-link" href="#content" onClick=${skip}>${text("skip")}</a>
    <header class="top">
      <${Button} kind="quiet" class="menu-button" icon="menu" label=${text("menu")} pressed=${isOpen} onClick=${() => setOpen(!isOpen)} />
      <a class="brand" href=${link("/")}>${text("name")}</a>
      <button type="button" class="button plain palette-button" onClick=${openPalette} aria-keyshortcuts="Control+K" aria-label=${text("search")}>
        <${Icon} name="search" /><span>${text("search")}</span><kbd>Ctrl K</kbd>
      </button>
      <div class="top-end">
        <${Bell} />
        <${CartLink} />
        <${Account} />
      </div>
    </header>
    <nav class=${isOpen ? "side open" : "side"} aria-label=${text("navigation")}>
      <${Navigation} path=${here.path} />
      <${Choices} />
    </nav>
    <main id="content"><${OfflineBanner} />${children}</main>`;
}

/** @param {{path: string}} props */
function Navigation({ path }) {
  const current = useSignal(session);
  const shown = viewAt(path)?.view;
  return menu(current).map(
    ({ section, title, views }) => html`<div key=${section} class="side-section">
      <p class="side-title" id=${`side-${section}`}>${title}</p>
      <ul aria-labelledby=${`side-${section}`}>
        ${views.map(
          (view) => html`<li key=${view.path}>
            <a href=${link(view.path)} aria-current=${isWithin(shown, view) ? "page" : undefined}>${view.title()}</a>
          </li>`,
        )}
      </ul>
    </div>`,
  );
}

/**
 * @param {import("./navigation.js").View | undefined} shown
 * @param {import("./navigation.js").View} view
 */
function isWithin(shown, view) {
  return shown !== undefined && (shown === view || shown.path.startsWith(`${view.path}/`));
}

function CartLink() {
  const count = useSignal(cartCount);
  return html`<a class="button quiet cart-link" href=${link("/cart")} aria-label=${text("cart", { count })}>
    <${Icon} name="cart" /><span class="count" aria-hidden="true">${count || ""}</span>
  </a>`;
}

function Bell() {
  const current = useSignal(session);
  const count = useSignal(unread);
  useEffect(watchInbox, []);
  if (!current) return null;
  const shown = count >= MOST_COUNTED ? `${MOST_COUNTED}+` : count || "";
  return html`<a class="button quiet cart-link" href=${link("/notifications")} aria-label=${text("bell", { count })}>
    <${Icon} name="bell" /><span class="count" aria-hidden="true">${shown}</span>
  </a>`;
}

function Account() {
  const current = useSignal(session);
  const starting = useSignal(isStarting);
  if (starting) return null;
  if (!current) return html`<${ButtonLink} href=${link("/sign-in")} kind="primary">${text("signIn")}<//>`;
  return html`<span class="account-name" title=${current.user.email}>${current.user.email}</span>
    <${Button} kind="quiet" class="wide-only" onClick=${leave}>${text("signOut")}<//>`;
}

async function leave() {
  await signOut();
  navigate("/");
}

function Choices() {
  const chosenTheme = useSignal(theme);
  const chosenLanguage = useSignal(language);
  const current = useSignal(session);
  return html`<div class="choices">
    ${current && html`<div class="narrow-only"><p class="muted small">${current.user.email}</p><${Button} onClick=${leave}>${text("signOut")}<//></div>`}
    <label>${text("language")}
      <select value=${chosenLanguage} onInput=${(/** @type {any} */ event) => chooseLanguage(event.target.value)}>
        <option value="en" lang="en">English</option>
        <option value="tr" lang="tr">Türkçe</option>
      </select>
    </label>
    <label>${text("theme")}
      <select value=${chosenTheme} onInput=${(/** @type {any} */ event) => chooseTheme(event.target.value)}>
        <option value="system">${text("system")}</option>
        <option value="light">${text("light")}</option>
        <option value="dark">${text("dark")}</option>
      </select>
    </label>
  </div>`;
}
