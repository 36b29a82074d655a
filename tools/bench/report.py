"""One self-contained HTML page of what kafka.py measured: percentile curves, throughput, CPU, settings."""

import html
import math
import statistics

from result import host
from systems import BROKER_CORE, LOAD_CORE

COLOURS = {"tailrace": "#1668b8", "kafka-durable": "#c0392b", "kafka": "#d68910"}
WIDTH, HEIGHT, LEFT, BOTTOM = 860, 420, 70, 50
PERCENTILES = [0, 50, 90, 99, 99.9, 99.99]
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:920px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}svg text{font:12px system-ui,sans-serif;fill:#444}
pre{background:#f6f6f6;padding:1em;overflow:auto;font-size:12px}"""


def write_html(options, result):
    names = list(result["rounds"])
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Tailrace and Apache Kafka</title>",
        f"<style>{STYLE}</style><h1>Tailrace and Apache Kafka 4.4</h1>",
        f"<p>{html.escape(description(options))}</p>",
        "<h2>Latency of produce, acks=all</h2>", curves(result),
        table(["us", *names], [[quantile.replace("_", "."), *[f"{result['medians'][name]['latency_us'][quantile]:,.0f}"
                                                              for name in names]]
                               for quantile in result["medians"][names[0]]["latency_us"]]),
        "<h2>Throughput, kafka-producer-perf-test with its defaults</h2>", throughput(result, names),
        "<h2>End to end, kafka-e2e-latency</h2>",
        table(["ms", *names], [[quantile[:-3].replace("_", "."), *[f"{result['medians'][name]['end_to_end'][quantile]:.0f}"
                                                                   for name in names]]
                               for quantile in result["medians"][names[0]]["end_to_end"]]),
        "<h2>The machine</h2>", block(host(options.binary)),
        *[f"<h2>Settings of {html.escape(name)}</h2>{block(told)}" for name, told in result["systems"].items()],
        "</html>\n",
    ]
    with open(options.html, "w", encoding="utf-8") as file:
        file.write("\n".join(parts))


def description(options):
    return (f"{options.rounds} rounds by turns; broker on core {BROKER_CORE}, load on core {LOAD_CORE}, the same file system. Latency at "
            f"{options.rate} single records of 1 KiB a second, open loop, for {options.seconds:g} s. Tables have "
            "medians of the rounds. kafka-durable has log.flush.interval.messages=1, and so the durability that Tailrace "
            "has; kafka acknowledges what is in the page cache.")


def throughput(result, names):
    rows = []
    for figure in result["medians"][names[0]]["throughput"]:
        values = [result["medians"][name]["throughput"][figure] for name in names]
        label, producers = figure.rsplit("_", 1)
        rows.append([f"{label.replace('_', ' ')}, {producers} producers", *[f"{value:,.1f}" for value in values]])
    return table(["", *names], rows)


def table(head, rows):
    cells = "".join(f"<th>{html.escape(each)}</th>" for each in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(each)}</td>" for each in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def block(values):
    return "<pre>" + "\n".join(html.escape(f"{key} = {value}") for key, value in values.items()) + "</pre>"


def across(percentile):
    """Each further nine takes as much room: log10 of what is left."""
    nines = min(-math.log10(1 - percentile / 100) if percentile < 100 else 4, 4)
    return LEFT + nines / 4 * (WIDTH - LEFT - 20)


def curves(result):
    """A curve for each round, faint, and the median of the rounds; both axes are logarithmic."""
    by_name = {name: [[(step["percentile"], step["latency_us"]) for step in each["latency"]["histogram"]]
                      for each in rounds] for name, rounds in result["rounds"].items()}
    all_values = [value for of in by_name.values() for curve in of for percentile, value in curve if percentile <= 99.99]
    low, high = 10 ** math.floor(math.log10(min(all_values))), 10 ** math.ceil(math.log10(max(all_values)))

    def up(value):
        share = math.log10(max(value, low) / low) / math.log10(high / low)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - 20)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="percentiles of latency">']
    for percentile in PERCENTILES:
        x = across(percentile)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="{HEIGHT - BOTTOM}" stroke="#eee"/>'
                     f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{percentile:g}</text>')
    value = low
    while value <= high:
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{up(value):.1f}" y2="{up(value):.1f}" stroke="#eee"/>'
                     f'<text x="{LEFT - 6}" y="{up(value) + 4:.1f}" text-anchor="end">{value:,.0f} us</text>')
        value *= 10
    for at, (name, of) in enumerate(by_name.items()):
        colour = COLOURS.get(name, "#555")
        for curve in of:
            parts.append(line([(across(p), up(v)) for p, v in curve if p <= 99.99], colour, 0.7, 0.35))
        parts.append(line([(across(p), up(v)) for p, v in median_curve(of)], colour, 2.5, 1))
        parts.append(f'<rect x="{LEFT + 12}" y="{24 + 20 * at}" width="14" height="4" fill="{colour}"/>'
                     f'<text x="{LEFT + 34}" y="{30 + 20 * at}">{html.escape(name)}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">percentile</text></svg>')
    return "".join(parts)


def median_curve(of):
    """At percentiles that are even on the axis."""
    for step in range(161):
        percentile = 100 * (1 - 10 ** (-step / 40))
        yield percentile, statistics.median(at(curve, percentile) for curve in of)


def at(curve, percentile):
    return next((value for reached, value in curve if reached >= percentile), curve[-1][1])


def line(points, colour, width, opacity):
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}" '
            f'stroke-opacity="{opacity}"/>')
