/** A search field that waits until the reader pauses. */
import { html, useEffect, useState } from "../lib/html.js";
import { Field } from "./form.js";

const PAUSE_MS = 250;

/** @param {{name?: string, label: string, value: string, onSearch: (wanted: string) => void, hint?: string}} props */
export function Search({ name = "search", label, value, onSearch, hint }) {
  const [wanted, setWanted] = useState(value);
  useEffect(() => {
    if (wanted === value) return undefined;
    const timer = setTimeout(() => onSearch(wanted.trim()), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [wanted]);
  return html`<${Field} name=${name} type="search" label=${label} value=${value} onInput=${setWanted} maxlength=${100} hint=${hint} />`;
}
