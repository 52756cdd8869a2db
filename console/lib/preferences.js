/** What a reader has chosen on this device: language and theme. */
import { effect, signal } from "./html.js";

/** @typedef {"en" | "tr"} Language */
/** @typedef {"system" | "light" | "dark"} Theme */

const PREFIX = "order-suite.";

/**
 * @param {string} name
 * @returns {string | null}
 */
export function stored(name) {
  try {
    return localStorage.getItem(PREFIX + name);
  } catch {
    return null; // the browser keeps nothing for this page
  }
}

/**
 * Keep a text on this device; without a value, forget it.
 * @param {string} name
 * @param {string | null} value
 */
export function store(name, value) {
  try {
    if (value === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, value);
  } catch {
    // the browser keeps nothing for this page: the choice lasts until it is closed
  }
}

/** @type {import("@preact/signals-core").Signal<Language>} */
export const language = signal(firstLanguage());
/** @type {import("@preact/signals-core").Signal<Theme>} */
export const theme = signal(firstTheme());

/** @returns {Language} */
function firstLanguage() {
  const chosen = stored("language") ?? navigator.language;
  return chosen.toLowerCase().startsWith("tr") ? "tr" : "en";
}

/** @returns {Theme} */
function firstTheme() {
  const chosen = stored("theme");
  return chosen === "light" || chosen === "dark" ? chosen : "system";
}

/** Show each choice in the page at once. */
export function applyPreferences() {
  effect(() => {
    document.documentElement.lang = language.value;
    document.documentElement.dataset.theme = theme.value;
  });
}

/** @param {Language} chosen */
export function chooseLanguage(chosen) {
  store("language", chosen);
  language.value = chosen;
}

/** @param {Theme} chosen */
export function chooseTheme(chosen) {
  store("theme", chosen === "system" ? null : chosen);
  theme.value = chosen;
}
