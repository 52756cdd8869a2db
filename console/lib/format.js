/** Money, numbers and times in the reader's locale. */
import { language } from "./preferences.js";

const LOCALES = { en: "en-GB", tr: "tr-TR" };
/** @type {Map<string, any>} */
const formats = new Map();

/**
 * @template T
 * @param {string} kind
 * @param {(locale: string) => T} make
 * @returns {T}
 */
function format(kind, make) {
  const key = `${language.value} ${kind}`;
  if (!formats.has(key)) formats.set(key, make(LOCALES[language.value]));
  return formats.get(key);
}

/**
 * Money with its currency. The amount is a decimal string and stays exact.
 * @param {string} amount
 * @param {string} [currency]
 */
export function money(amount, currency = "TRY") {
  /** @type {Intl.NumberFormatOptions} */
  const options = { style: "currency", currency, currencyDisplay: "narrowSymbol" };
  const made = format(`money ${currency}`, (locale) => new Intl.NumberFormat(locale, options));
  return made.format(/** @type {any} */ (amount));
}

/** @param {number} value */
export function number(value) {
  return format("number", (locale) => new Intl.NumberFormat(locale)).format(value);
}

/** Day and time. @param {string} instant  RFC 3339 */
export function dateTime(instant) {
  /** @type {Intl.DateTimeFormatOptions} */
  const options = { dateStyle: "medium", timeStyle: "short" };
  return format("date", (locale) => new Intl.DateTimeFormat(locale, options)).format(new Date(instant));
}

/** The time of day with milliseconds. @param {string} instant  RFC 3339 */
export function clock(instant) {
  /** @type {Intl.DateTimeFormatOptions} */
  const options = { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 };
  return format("clock", (locale) => new Intl.DateTimeFormat(locale, options)).format(new Date(instant));
}

/** A duration such as 420 ms or 3.1 s. @param {number} milliseconds */
export function duration(milliseconds) {
  const isShort = Math.abs(milliseconds) < 1000;
  const unit = isShort ? "millisecond" : "second";
  /** @type {Intl.NumberFormatOptions} */
  const options = { style: "unit", unit, unitDisplay: "narrow", maximumFractionDigits: isShort ? 0 : 1 };
  const made = format(`duration ${unit}`, (locale) => new Intl.NumberFormat(locale, options));
  return made.format(isShort ? milliseconds : milliseconds / 1000);
}

/** How long ago, such as "3 minutes ago". @param {string} instant  RFC 3339 */
export function ago(instant) {
  const seconds = (new Date(instant).getTime() - Date.now()) / 1000;
  /** @type {[Intl.RelativeTimeFormatUnit, number][]} */
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size) ?? ["second", 1];
  const made = format("ago", (locale) => new Intl.RelativeTimeFormat(locale, { numeric: "auto" }));
  return made.format(Math.round(seconds / size), unit);
}

/** The last part of an id, which tells two ids of the same time apart. @param {string} id */
export function shortId(id) {
  return id.slice(-8);
}
