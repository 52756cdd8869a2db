"""The plot of docs/performance.md: `python -m tests.bench.plot var/bench/result.json docs/performance.svg`.

Runs in the bench's environment, for pygal. Throughput on the left axis, latency on the right one.
"""

import json
import re
import sys
from pathlib import Path

import pygal
from pygal.style import Style

SCRIPT = re.compile(r"<script.*?</script>", re.DOTALL)
WIDTH, HEIGHT = 900, 480
STYLE = Style(
    background="white",
    plot_background="white",
    colors=("#1b6ca8", "#2a9d55", "#c0392b", "#e08e0b"),
    font_family="sans-serif",
    label_font_size=13,
    major_label_font_size=13,
    legend_font_size=13,
    title_font_size=16,
)


def draw(points):
    """SVG of a sweep's points; without the scripts and the fonts of pygal, so that it is only a picture."""
    most = max(point["offered"] for point in points) * 1.05
    chart = pygal.XY(
        width=WIDTH,
        height=HEIGHT,
        style=STYLE,
        js=(),
        title="Throughput and latency over offered load",
        x_title="orders offered a second",
        y_title="orders a second (left), milliseconds (right)",
        legend_at_bottom=True,
        range=(0, most),
        xrange=(0, most),
        secondary_range=(0, max(point["settle p99"] for point in points) * 1.05),
    )
    for name, secondary in (("accepted", False), ("settled", False), ("accept p99", True), ("settle p99", True)):
        title = f"{name} ms" if secondary else f"{name}/s"
        chart.add(title, [(point["offered"], point[name]) for point in points], secondary=secondary)
    return SCRIPT.sub("", chart.render(disable_xml_declaration=True, is_unicode=True)) + "\n"


def main(result, svg):
    """The command line."""
    Path(svg).write_text(draw(json.loads(Path(result).read_text())["sweep"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
