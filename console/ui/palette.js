/** The command palette (Ctrl K or ⌘ K): every view and every action of the shown view, by typing a part of its name. */
import { html, signal, useEffect, useId, useRef, useSignal, useState } from "../lib/html.js";
import { dictionary } from "../lib/i18n.js";
import { navigate } from "../lib/router.js";
import { session } from "../lib/session.js";
import { menu } from "../navigation.js";
import { toastProblem } from "./toast.js";
import { asProblem } from "../lib/http.js";

/** @typedef {{name: string, detail?: string, run: () => unknown}} Command */

const text = dictionary(
  { title: "Commands", placeholder: "Type a command or the name of a page", none: "Nothing has this name." },
  { title: "Komutlar", placeholder: "Bir komut ya da sayfa adı yazın", none: "Bu adla bir şey yok." },
);

const isOpen = signal(false);
/** @type {Map<symbol, Command[]>} */
const offered = new Map();

export function openPalette() {
  isOpen.value = true;
}

/**
 * Offer commands while a view is shown.
 * @param {Command[]} commands
 * @param {readonly unknown[]} dependencies
 */
export function useCommands(commands, dependencies) {
  useEffect(() => {
    const key = Symbol("commands");
    offered.set(key, commands);
    return () => void offered.delete(key);
  }, dependencies);
}

/** @returns {Command[]} */
function allCommands() {
  const views = menu(session.peek()).flatMap((section) =>
    section.views.map((view) => ({ name: view.title(), detail: section.title, run: () => navigate(view.path) })),
  );
  return [...[...offered.values()].flat(), ...views];
}

/** @param {string} value */
function folded(value) {
  return value.toLocaleLowerCase(document.documentElement.lang).normalize("NFD").replace(/\p{M}/gu, "").replaceAll("ı", "i");
}

/** The place of the palette, once in the page. It listens for its key. */
export function Palette() {
  const shown = useSignal(isOpen);
  useEffect(() => {
    const listen = (/** @type {KeyboardEvent} */ event) => {
      if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "k") return;
      event.preventDefault();
      isOpen.value = !isOpen.peek();
    };
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  }, []);
  return shown ? html`<${OpenPalette} />` : null;
}

function OpenPalette() {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const [wanted, setWanted] = useState("");
  const [chosen, setChosen] = useState(0);
  const id = useId();
  useEffect(() => {
    const element = dialog.current;
    if (element && !element.open) element.showModal();
    return () => element?.close();
  }, []);
  const words = folded(wanted).split(/\s+/).filter(Boolean);
  const found = allCommands().filter((one) => words.every((word) => folded(`${one.name} ${one.detail ?? ""}`).includes(word)));
  const at = Math.min(chosen, Math.max(0, found.length - 1));
  const close = () => {
    isOpen.value = false;
  };
  const run = async (/** @type {Command | undefined} */ command) => {
    if (!command) return;
    close();
    try {
      await command.run();
    } catch (error) {
      toastProblem(asProblem(error));
    }
  };
  const move = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      setChosen((at + step + found.length) % Math.max(1, found.length));
    } else if (event.key === "Enter") {
      event.preventDefault();
      void run(found[at]);
    }
  };
  const type = (/** @type {any} */ event) => {
    setWanted(event.target.value);
    setChosen(0);
  };
  const onBackdrop = (/** @type {MouseEvent} */ event) => event.target === dialog.current && close();
  return html`<dialog ref=${dialog} class="dialog palette" aria-label=${text("title")} onClose=${close} onClick=${onBackdrop}>
    <input
      type="text"
      role="combobox"
      aria-expanded="true"
      aria-controls=${id}
      aria-activedescendant=${found.length ? `${id}-${at}` : undefined}
      aria-label=${text("placeholder")}
      placeholder=${text("placeholder")}
      autocomplete="off"
      onInput=${type}
      onKeyDown=${move}
    />
    <ul id=${id} role="listbox" aria-label=${text("title")}>
      ${found.map(
        (one, index) => html`<li key=${`${one.name} ${one.detail}`} id=${`${id}-${index}`} role="option" aria-selected=${String(index === at)} onClick=${() => run(one)}>
          <span>${one.name}</span><span class="muted small">${one.detail}</span>
        </li>`,
      )}
    </ul>
    ${found.length === 0 && html`<p class="muted">${text("none")}</p>`}
  </dialog>`;
}
