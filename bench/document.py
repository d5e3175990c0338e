"""What docs/performance.md shows of a run: goals, tables, plots. Everything is made from the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.figures import Figure, Report, number, spread
from bench.goals import goals
from bench.plots import Panel, svg
from bench.servers import FLOOR, GAPLESS

GENERATOR = "generator's CPU"
_MARKS = {"generator was the limit": "†", "disturbed": "°", "generator was late": "‡"}

_WHY = (
    # (part of the case, part of the figure, peer or "": any, why)
    ("REST", "", "", "the peer stores nothing"),
    ("", "RSS per connection", "Mosquitto", "a C structure of a connection against objects of Python"),
    ("", "RSS", "", "objects of Python, and what a connection keeps to resume"),
    ("", "latency", "", "each event is on disk before it is handed out: a commit lies between, the peer has none"),
    (
        "rooms of 3",
        "",
        "",
        "an event costs its way in, its place in the log and its index entries, which three deliveries do not "
        "outweigh; the peer stores nothing",
    ),
    ("1 : 1", "", "", "an event costs its way in and its place in the log, and one delivery does not outweigh it"),
    ("MQTT", "", "Mosquitto", "C against Python, beside the log; Python's work per packet is what is left"),
    (" 1 → ", "deliveries", "", "each event waits for the commit of the last one here; the peer has none"),
    ("", "", "Centrifugo", "compiled code that stores nothing"),
    ("", "", "", "the log, and the interpreter's work per event"),
)

_PLOTS: tuple[tuple[str, str, tuple[tuple[str, str, str], ...]], ...] = (
    # (file, what it shows, panels: title, case, figure)
    (
        "fan-out",
        "CPU per delivery of one event to 1,000 clients",
        (
            ("Socket.IO, 1 event → 1,000 clients: µs of CPU per delivery", "Socket.IO 1 → 1,000", "CPU per delivery"),
            ("MQTT QoS 0, 1 → 1,000: µs of CPU per delivery", "MQTT QoS 0 1 → 1,000", "CPU per delivery"),
            ("MQTT QoS 1, 1 → 1,000: µs of CPU per delivery", "MQTT QoS 1 1 → 1,000", "CPU per delivery"),
        ),
    ),
    (
        "bursts",
        "CPU per delivery when events are published at once",
        (
            ("Socket.IO, 10 events at once → 200: µs of CPU per delivery", "Socket.IO 10 → 200", "CPU per delivery"),
            ("Socket.IO, 100 events at once → 200: µs of CPU per delivery", "Socket.IO 100 → 200", "CPU per delivery"),
            ("MQTT QoS 1, 10 events at once → 200: µs of CPU per delivery", "MQTT QoS 1 10 → 200", "CPU per delivery"),
        ),
    ),
    (
        "bridge",
        "events per second and latency between the protocols, one to one",
        (
            ("MQTT → Socket.IO, 1 : 1: events per second (more is better)", "MQTT QoS 1 → Socket.IO 1 : 1", "events"),
            ("Socket.IO → MQTT, 1 : 1: events per second (more is better)", "Socket.IO → MQTT QoS 1 1 : 1", "events"),
            (
                "MQTT → Socket.IO at 1,000 events/s: p99 from publish to receipt, ms",
                "MQTT QoS 1 → Socket.IO 1 : 1",
                "latency p99 at 1,000/s",
            ),
        ),
    ),
    (
        "memory",
        "resident memory for each idle connection, of 1,000",
        (
            ("Socket.IO: KiB for each idle connection", "Socket.IO 1 → 1,000", "RSS per connection"),
            ("MQTT QoS 1: KiB for each idle connection", "MQTT QoS 1 1 → 1,000", "RSS per connection"),
        ),
    ),
)


def render(report: Report, folder: Path) -> str:
    """All parts as Markdown; the plots are written to `plots` in the folder of the document."""
    parts = [_goals(report), _plots(report, folder / "plots"), _tables(report), _worse(report), _calibration(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _goals(report: Report) -> str:
    rows = ["### Goals", "", "| goal | measured | |", "|---|---|---|"]
    for goal, outcome in goals(report):
        said = {True: "reached", False: "**not reached**", None: "open"}[outcome.reached]
        rows.append(f"| {goal} | {outcome.measured} | {said} |")
    return "\n".join(rows)


# --- plots


def _plots(report: Report, folder: Path) -> str:
    shown = []
    for file, what, wanted in _PLOTS:
        panels = []
        for title, case, name in wanted:
            figures = _of(report, case, name)
            if len(figures) > 1:
                panels.append(Panel(title, figures))
        path = folder / f"{file}.svg"
        if panels:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(svg(panels, described=what))
            shown.append(f"![{what}](plots/{path.name})")
        else:
            path.unlink(missing_ok=True)  # it would be of another run
    if not shown:
        return ""
    said = "Bars are medians, whiskers the smallest and largest value; a bar with a gap is longer than shown."
    return "\n\n".join(["### Plots", said, *shown])


def _of(report: Report, case: str, name: str) -> list[Figure]:
    return [figure for figure in report.ordered() if (figure.case, figure.name) == (case, name)]


# --- tables


def _tables(report: Report) -> str:
    by_case: dict[str, list[Figure]] = {}
    for figure in report.ordered():
        by_case.setdefault(figure.case, []).append(figure)
    parts = ["### All figures", "Median, smallest–largest, and how many times the peer's median Gapless has."]
    parts += [f"**{case}**\n\n{_table(report, figures)}" for case, figures in by_case.items()]
    marks = [f"{_MARKS[note]} {note}" for note in _MARKS if any(note in f.notes for f in report.figures.values())]
    if marks:
        parts.append("; ".join(marks) + " (in at least one repeat).")
    for kind, found in (("Not run", report.not_run), ("Failed", report.failed)):
        if found:
            parts.append(f"{kind}:\n\n" + "\n".join(f"- {what}: {why}" for what, why in found.items()))
    return "\n\n".join(parts)


def _table(report: Report, figures: Sequence[Figure]) -> str:
    names = list(dict.fromkeys(figure.name for figure in figures))
    servers = list(dict.fromkeys(figure.server for figure in figures))
    found = {(figure.server, figure.name): figure for figure in figures}
    if len(servers) == 1:  # a column of figures reads better than a row of many
        rows = [f"| | {servers[0]} |", "|---|---:|"]
        rows += [
            f"| {name}, {found[servers[0], name].unit} | {_cell(report, found[servers[0], name])} |" for name in names
        ]
        return "\n".join(rows)
    rows = ["| | " + " | ".join(servers) + " |", "|---|" + "---:|" * len(servers)]
    for name in names:
        unit = next(figure.unit for figure in figures if figure.name == name)
        cells = [_cell(report, figure) if (figure := found.get((server, name))) else "" for server in servers]
        rows.append(f"| {name}, {unit} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cell(report: Report, figure: Figure) -> str:
    marks = "".join(_MARKS[note] for note in figure.notes if note in _MARKS)
    text = f"**{number(figure.median)}**{marks}"
    if values := spread(figure):
        text += f"<br>{values}"
    own = report.figures.get((figure.case, figure.name, GAPLESS))
    if figure.server != GAPLESS and own is not None and figure.median and figure.name != GENERATOR:
        text += f"<br>{own.median / figure.median:.2f} x"
    return text


# --- what did worse, and the generator


def _worse(report: Report) -> str:
    rows: list[str] = []
    for own in report.ordered():
        if own.server != GAPLESS or own.name == GENERATOR:
            continue
        for peer in _of(report, own.case, own.name):
            if peer.server in (GAPLESS, FLOOR) or not peer.median or not own.median:
                continue
            ratio = own.median / peer.median
            if (ratio < 1) if own.unit == "/s" else (ratio > 1):
                rows.append(f"| {own.case} | {own.name} | {ratio:.2f} x {peer.server} | {_why(own, peer.server)} |")
    if not rows:
        return "### Worse than a peer\n\nNothing in this run."
    return "\n".join(["### Worse than a peer", "", "| case | figure | Gapless is | why |", "|---|---|---|---|", *rows])


def _why(own: Figure, peer: str) -> str:
    return next(
        why for case, name, server, why in _WHY if case in own.case and name in own.name and server in ("", peer)
    )


def _calibration(report: Report) -> str:
    rows: list[str] = []
    for floor in report.ordered():
        if floor.server != FLOOR or floor.unit != "/s":
            continue
        others = [figure for figure in _of(report, floor.case, floor.name) if figure.server != FLOOR]
        if not others:
            continue
        fastest = max(others, key=lambda figure: figure.median)
        share = report.figures.get((floor.case, GENERATOR, FLOOR))
        rows.append(
            f"| {floor.case}: {floor.name} | {number(floor.median)} | {f'{number(share.median)} %' if share else ''} "
            f"| {number(fastest.median)}, {fastest.server} | {'yes' if floor.median > fastest.median else '**no**'} |"
        )
    if not rows:
        return ""
    head = [
        "### What the load generator can do",
        "",
        "With the raw floor in place of a server: the generator can do at least as much.",
        "",
        "| load | raw floor, /s | generator's core busy | fastest server, /s | floor is faster |",
        "|---|---:|---:|---|---|",
    ]
    return "\n".join([*head, *rows])
