/** A plot over time. Its colours are those of the page, and what it says is also text for screen readers. */
import uPlot from "uplot";
import { html, useEffect, useRef, useSignal, useState } from "../lib/html.js";
import { language, theme } from "../lib/preferences.js";
import { number } from "../lib/format.js";
import { Panel } from "./page.js";

/** @typedef {{label: string, color: "--accent" | "--good" | "--warn" | "--bad" | "--muted", values: (number | null)[]}} Line */

const HEIGHT = 200;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

/** @param {string} name */
const css = (name) => window.getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A colour that a canvas understands: light-dark() is resolved by the browser. @param {string} name */
function color(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = window.getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/**
 * @param {string[]} names
 * @param {Line["color"][]} colors
 * @param {number} width
 * @param {number} least  the least value at the top of the scale
 * @returns {uPlot.Options}
 */
function options(names, colors, width, least) {
  const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line"), width: 1 }, font: `12px ${css("--font")}` };
  const time = new Intl.DateTimeFormat(document.documentElement.lang, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: (_, __, high) => [0, Math.max(least, (high ?? 0) * 1.1)] } },
    axes: [
      { ...axis, space: 90, values: (_, splits) => splits.map((second) => time.format(second * 1000)) },
      { ...axis, size: 44, values: (_, splits) => splits.map(number) },
    ],
    series: [{}, ...names.map((label, index) => ({ label, stroke: color(colors[index]), width: 2, points: { size: 4 }, spanGaps: false }))],
  };
}

/** @param {{title: string, at: number[], lines: Line[], format: (value: number) => string, least?: number}} props */
export function Plot({ title, at, lines, format, least = 1 }) {
  const place = useRef(/** @type {HTMLDivElement | null} */ (null));
  const plot = useRef(/** @type {uPlot | null} */ (null));
  const chosen = useSignal(theme);
  const spoken = useSignal(language);
  const [isDark, setDark] = useState(prefersDark.matches);
  useEffect(() => {
    const listen = () => setDark(prefersDark.matches);
    prefersDark.addEventListener("change", listen);
    return () => prefersDark.removeEventListener("change", listen);
  }, []);
  const data = /** @type {uPlot.AlignedData} */ ([at, ...lines.map((line) => line.values)]);
  useEffect(() => {
    const element = /** @type {HTMLDivElement} */ (place.current);
    const made = new uPlot(options(lines.map((line) => line.label), lines.map((line) => line.color), element.clientWidth, least), data, element);
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    watch.observe(element);
    return () => {
      watch.disconnect();
      made.destroy();
    };
  }, [chosen, isDark, spoken]);
  useEffect(() => plot.current?.setData(data), [at]);
  const latest = (/** @type {Line} */ line) => line.values.findLast((value) => value !== null);
  return html`<${Panel} title=${title}>
    <ul class="plot-legend">
      ${lines.map((line) => {
        const value = latest(line);
        return html`<li key=${line.label}>
          <span class="swatch" style=${{ background: `var(${line.color})` }}></span>${line.label}: <strong>${value === undefined || value === null ? "–" : format(value)}</strong>
        </li>`;
      })}
    </ul>
    <div class="plot" ref=${place} aria-hidden="true"></div>
  <//>`;
}
