"""The plot of docs/performance.md: `python -m qa.bench.plot var/bench/result.json docs/performance.svg`.

It runs in the benchmark's virtual environment, which has pygal. The left axis is throughput, the right one latency.
"""

import json
import math
import re
import sys
from pathlib import Path

import pygal
from pygal.style import Style

SCRIPT = re.compile(r"<script.*?</script>", re.DOTALL)
WIDTH, HEIGHT = 900, 480
LINES = 8  # across the plot, for both axes
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
    """Return the SVG of a sweep's points, without pygal's scripts and fonts."""
    most = LINES * _step(max(point["offered"] for point in points))
    longest = LINES * _step(max(point["settle p99"] for point in points))
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
        y_labels=[most * line / LINES for line in range(LINES + 1)],
        xrange=(0, most),
        secondary_range=(0, longest),
    )
    for name, secondary in (("accepted", False), ("settled", False), ("accept p99", True), ("settle p99", True)):
        title = f"{name} ms" if secondary else f"{name}/s"
        chart.add(title, [(point["offered"], point[name]) for point in points], secondary=secondary)
    return SCRIPT.sub("", chart.render(disable_xml_declaration=True, is_unicode=True)) + "\n"


def _step(most):
    """Return a round number of which LINES steps are just enough for `most`."""
    least = most / LINES
    power = 10 ** math.floor(math.log10(least))
    return next(power * easy for easy in (1, 2, 2.5, 4, 5, 10) if power * easy >= least)


def main(result, svg):
    """The command line."""
    Path(svg).write_text(draw(json.loads(Path(result).read_text())["sweep"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
