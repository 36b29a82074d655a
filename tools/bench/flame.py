"""Folded stacks of `perf script` as one SVG: the wider a box, the more samples were in it or in what it called."""

import html
import re
from collections import Counter

WIDTH, ROW, SMALLEST = 1200, 17, 0.4
FRAME = re.compile(r"^\s+[0-9a-f]+ (.+?) \((.*?)\)$")


def folded(script):
    """Samples by stack, outermost frame first; `script` is what `perf script` printed."""
    stacks = Counter()
    for sample in script.split("\n\n"):
        lines = sample.strip("\n").split("\n")
        frames = [name_of(found) for line in lines[1:] if (found := FRAME.match(line))]
        if frames:
            stacks[tuple(reversed(frames))] += 1
    return stacks


def name_of(found):
    name = re.sub(r"\+0x[0-9a-f]+$", "", found[1])
    return f"{name}_[k]" if found[2].startswith("[") else name


def tree_of(stacks):
    root = {"name": "all", "count": 0, "below": {}}
    for stack, count in stacks.items():
        node = root
        node["count"] += count
        for name in stack:
            node = node["below"].setdefault(name, {"name": name, "count": 0, "below": {}})
            node["count"] += count
    return root


def boxes(node, left, level, scale):
    width = node["count"] * scale
    if width >= SMALLEST:
        yield node, left, level, width
        for below in sorted(node["below"].values(), key=lambda each: each["name"]):
            yield from boxes(below, left, level + 1, scale)
            left += below["count"] * scale


def svg(stacks, title):
    root = tree_of(stacks)
    drawn = list(boxes(root, 0, 0, WIDTH / root["count"]))
    height = (max(level for _, _, level, _ in drawn) + 3) * ROW
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" '
             f'font-size="11"><text x="4" y="13">{html.escape(title)}, {root["count"]} samples</text>']
    for node, left, level, width in drawn:
        top = height - (level + 1) * ROW
        share = f"{100 * node['count'] / root['count']:.1f} %"
        name = html.escape(node["name"])
        shown = html.escape(node["name"][:int(width / 6.7)]) if width > 20 else ""
        colour = "#8fb8de" if node["name"].endswith("_[k]") else "#f2b56b"
        parts.append(f'<g><title>{name}, {share}</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" '
                     f'height="{ROW - 1}" fill="{colour}"/><text x="{left + 2:.1f}" y="{top + 12}">{shown}</text></g>')
    return "\n".join([*parts, "</svg>\n"])
