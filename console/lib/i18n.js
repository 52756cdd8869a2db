/** Texts in English and Turkish. Each view has its own: `const text = dictionary({...}, {...})`. */
import { language } from "./preferences.js";

/** @typedef {string | {one: string, other: string}} Text  A text, or its forms by the number `count`. */
/** @typedef {Record<string, string | number>} Values */

/** @type {Record<string, Intl.PluralRules>} */
const plurals = { en: new Intl.PluralRules("en"), tr: new Intl.PluralRules("tr") };

/**
 * A function that returns the text of a key in the reader's language; `{name}` in a text is replaced by a value.
 * tsc reports a key that one of the two languages lacks, and a call with an unknown key.
 * @template {Record<string, Text>} T
 * @param {T} en
 * @param {{[K in keyof T]: Text}} tr
 * @returns {(key: keyof T, values?: Values) => string}
 */
export function dictionary(en, tr) {
  const languages = { en, tr };
  return (key, values = {}) => {
    const found = /** @type {Text | undefined} */ (languages[language.value][key]);
    if (found === undefined) return String(key); // a word of the API that this page does not know yet
    const form = typeof found === "string" ? found : found[formOf(Number(values.count))];
    return form.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
  };
}

/**
 * @param {number} count
 * @returns {"one" | "other"}
 */
function formOf(count) {
  return plurals[language.value].select(count) === "one" ? "one" : "other";
}
