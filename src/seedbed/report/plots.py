"""Figures as SVG text, to stand in the page: equal numbers give equal bytes. Their colours are the page's CSS variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seedbed.report.tables import tuned

INK = "#1c1917"
COLOURS = ("#0072b2", "#c04e00", "#007a5a")
"""Three that colour-blind readers tell apart (after Okabe & Ito); the page gives each a lighter twin for dark screens: --c0, --c1, --c2."""
SHAPES = ("o", "s", "^")
"""No line is told by its colour alone."""
WIDE = 4
"""A range of training rows more than so many times its start is drawn on a log scale."""


def curve(gain: Mapping[str, Any]) -> str:
    """Score on test (points) by number of training rows, with 95 % bands; "" where nothing was measured."""
    known = sorted((e for e in gain["curve"] if e["mean"] is not None), key=lambda e: (e["n_train"], e["arm"]))
    if not known:
        return ""
    lines = {"real only": [e for e in known if e["arm"] in ("real", "full")], "real + synthetic": [e for e in known if e["arm"] == "both"]}

    def draw(axes: Any) -> None:
        for colour, shape, (label, entries) in zip(COLOURS, SHAPES, lines.items(), strict=False):
            if entries:
                x = [e["n_train"] for e in entries]
                axes.plot(x, [e["mean"] for e in entries], marker=shape, markersize=4, color=colour, label=label)
                axes.vlines(x, [e["low"] for e in entries], [e["high"] for e in entries], color=colour, linewidth=0.8, alpha=0.6)
                axes.fill_between(x, [e["low"] for e in entries], [e["high"] for e in entries], color=colour, alpha=0.15, linewidth=0)
        _rows_axis(axes, [e["n_train"] for e in known])
        axes.set_xlabel("training rows")
        axes.set_ylabel(f"{gain['metric']} on test (points)")

    return _svg("curve", draw)


def losses(training: Mapping[str, Any]) -> str:
    """Dev loss of each form by epoch, over the loss without a prompt; "" where no form has a log."""
    logs = {name: form["log"] for name, form in training["forms"].items() if form.get("log")}
    if not logs:
        return ""

    def draw(axes: Any) -> None:
        for i, (name, log) in enumerate(logs.items()):
            colour, shape = COLOURS[i % len(COLOURS)], SHAPES[i % len(SHAPES)]
            axes.plot([e["epoch"] for e in log], [e["dev"] for e in log], marker=shape, markersize=3, color=colour, label=name)
        axes.axhline(training["forms"]["none"]["dev"], color=INK, linestyle="--", linewidth=1, label="before" if tuned(training) else "no prompt")
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"dev loss ({training['unit']})")

    return _svg("losses", draw)


def plane(seen: Mapping[str, Any]) -> str:
    """`closeup.plane` drawn, equal scales on both axes; "" where it holds no points."""
    if not seen["real"]:
        return ""

    def draw(axes: Any) -> None:
        looks: dict[str, dict[str, Any]] = {"real": {"marker": "o", "markerfacecolor": "none"}, "synthetic": {"marker": "^", "markeredgewidth": 0}}
        for colour, (side, look) in zip(COLOURS, looks.items(), strict=False):
            x, y = zip(*seen[side], strict=True)
            axes.plot(x, y, linestyle="none", markersize=4.5, alpha=0.7, color=colour, label=side, **look)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel("first component")
        axes.set_ylabel("second component")

    return _svg("plane", draw, height=4.2)


def _rows_axis(axes: Any, rows: Sequence[int]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if min(rows) > 0 and max(rows) > WIDE * min(rows):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))


def _svg(name: str, draw: Callable[[Any], None], height: float = 3.4) -> str:
    """The <svg> element alone. name: salts its ids, so that two figures in one page share none."""
    import io

    import matplotlib
    from matplotlib.figure import Figure

    colours = dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color", "grid.color"), INK)
    out = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the user's own style: equal bytes on every machine
        matplotlib.rcParams.update(
            {**colours, "svg.hashsalt": name, "svg.fonttype": "none", "text.parse_math": False, "font.size": 10.5, "grid.alpha": 0.15}
            | {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "legend.frameon": False}
            | {"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 3, "ytick.major.size": 3}
        )
        figure = Figure(figsize=(5.0, height), layout="constrained")  # inches of 72 units: as wide as a phone, so its letters keep their size
        axes = figure.subplots()
        draw(axes)
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4, borderaxespad=0, columnspacing=1.5, handlelength=1.6
        )  # above: hides no point
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    text = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])  # these ids are the same in every figure
    for i, colour in enumerate(COLOURS):
        text = text.replace(colour, f"var(--c{i}, {colour})")
    return text.replace(INK, "currentColor").strip()
