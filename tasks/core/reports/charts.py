"""The report's charts as inline SVG: the same bytes for the same table, and readable on a light or a dark page."""

import re
import warnings
from collections.abc import Mapping
from io import StringIO

import matplotlib.style
import pandas as pd
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

INK = "#010203"  # written as currentColor, so that text and axes follow the page's own colour
DATA = "#4a86cf"  # more than 3:1 against white and against near-black
OTHER_DATA = "#c8762b"  # likewise
WIDTH_IN = 5.0
LONGEST_LABEL = 16
MOST_EPOCH_LABELS = 8

STYLE: list[str | dict[str, object]] = [
    "default",  # not the user's own matplotlibrc
    {
        "svg.fonttype": "none",
        "text.parse_math": False,  # a class may be called $x$
        "font.size": 11,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
        **dict.fromkeys((f"axes.spines.{side}" for side in ("left", "right", "top")), False),
        **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
        "grid.color": INK,
        "grid.alpha": 0.14,
        "axes.axisbelow": True,
    },
]


def accuracy_chart(per_class: pd.DataFrame) -> str:
    """Bars of each class's accuracy with its 95% interval; the dashed line is the accuracy over all images."""
    with matplotlib.style.context(STYLE):
        names = [_shortened(name) for name in per_class["class"]]
        left_in = 0.15 + 0.09 * max(map(len, names))
        figure, axes = _canvas(height_in=0.85 + 0.33 * len(names), left_in=left_in, right_in=0.75)
        tested = per_class.reset_index(drop=True).query("support > 0")
        axes.barh(tested.index, tested["accuracy"], height=0.62, color=DATA)
        axes.hlines(tested.index, tested["accuracy_low"], tested["accuracy_high"], color=INK, linewidth=1.5)
        overall = tested["correct"].sum() / tested["support"].sum()
        axes.axvline(overall, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(overall, -0.8, f"overall {overall:.1%}", ha=_alignment(overall), va="bottom")
        right_edge = blended_transform_factory(figure.transFigure, axes.transData)
        for row, name in enumerate(names):
            value = f"{tested['accuracy'][row]:.1%}" if row in tested.index else "–"
            axes.text(-0.02, row, name, ha="right", va="center")
            axes.text(0.99, row, value, ha="right", va="center", transform=right_edge)
        axes.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6), yticks=[], xticks=[0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.grid(axis="x")
        return _svg(figure, "Accuracy of each class with its 95% interval")


def loss_chart(training: pd.DataFrame) -> str:
    """The running loss over the training steps, with a line where each epoch begins."""
    with matplotlib.style.context(STYLE):
        figure, axes = _canvas(height_in=3.1, left_in=0.5, right_in=0.55)
        steps, losses = training["step"].to_numpy(), training["running_loss"].to_numpy()
        axes.plot(steps, losses, color=DATA, linewidth=2, clip_on=False, marker="o", markevery=[-1])
        axes.annotate(f"{losses[-1]:.3f}", (steps[-1], losses[-1]), (6, 0), textcoords="offset points", va="center")
        axes.set_xlim(0, steps[-1])
        _mark_epochs(axes, training)
        axes.text(-0.02, 1.13, "running loss", transform=axes.transAxes, ha="left")
        axes.set_xlabel("training step")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.locator_params(axis="x", nbins=5, integer=True)
        axes.locator_params(axis="y", nbins=5)
        axes.grid(axis="y")
        return _svg(figure, "Running loss over the training steps")


def learning_chart(training: pd.DataFrame) -> str:
    """The share of the training images that is predicted right over the training steps; dots for those held out."""
    with matplotlib.style.context(STYLE):
        figure, axes = _canvas(height_in=3.1, left_in=0.5, right_in=0.55)
        axes.plot(training["step"], training["running_accuracy"], color=DATA, linewidth=2, clip_on=False)
        held_out = training.dropna(subset=["validation_accuracy"])
        axes.plot(held_out["step"], held_out["validation_accuracy"], "o", color=INK, markersize=5, clip_on=False)
        axes.set_xlim(0, training["step"].iloc[-1])
        axes.set_ylim(0, 1)
        _mark_epochs(axes, training)
        axes.text(-0.02, 1.13, "accuracy while training", transform=axes.transAxes, ha="left")
        axes.set_xlabel("training step")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.locator_params(axis="x", nbins=5, integer=True)
        axes.grid(axis="y")
        return _svg(figure, "Accuracy while training over the training steps")


def reliability_chart(calibration: pd.DataFrame) -> str:
    """Of the images of each bin of confidence: how many were predicted right, with its 95% interval."""
    with matplotlib.style.context(STYLE):
        figure, axes = _canvas(height_in=3.6, left_in=0.5, right_in=0.3)
        bins = calibration[calibration["images"] > 0]
        axes.plot((0, 1), (0, 1), color=INK, linewidth=1, linestyle=(0, (4, 3)))
        width = bins["high"] - bins["low"]
        axes.bar(bins["low"], bins["accuracy"], width=width, align="edge", color=DATA, alpha=0.35)
        axes.vlines(bins["confidence"], bins["accuracy_low"], bins["accuracy_high"], color=INK, linewidth=1.5)
        axes.plot(bins["confidence"], bins["accuracy"], "o", color=DATA, markersize=5, clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence")
        axes.text(-0.02, 1.06, "accuracy", transform=axes.transAxes, ha="left")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:.0%}")
        axes.grid()
        return _svg(figure, "Accuracy by confidence, with 95% intervals")


def difference_chart(changes: pd.DataFrame) -> str:
    """Differences `value` in accuracy of each row `name`, `low` to `high`; filled where the interval leaves out 0."""
    with matplotlib.style.context(STYLE):
        names = [_shortened(name) for name in changes["name"]]
        left_in = 0.15 + 0.09 * max(map(len, names))
        figure, axes = _canvas(height_in=0.85 + 0.33 * len(names), left_in=left_in, right_in=0.75)
        axes.axvline(0, color=INK, linewidth=1)
        right_edge = blended_transform_factory(figure.transFigure, axes.transData)
        in_points = (100 * changes[["value", "low", "high"]]).to_numpy().tolist()
        for row, (name, (value, low, high)) in enumerate(zip(names, in_points, strict=True)):
            moved = low > 0 or high < 0
            axes.hlines(row, low, high, color=DATA, linewidth=2)
            axes.plot(value, row, "o", color=DATA, markersize=7, fillstyle="full" if moved else "none")
            axes.text(-0.02, row, name, ha="right", va="center", transform=axes.get_yaxis_transform())
            axes.text(0.99, row, _with_sign(value, ".1f"), ha="right", va="center", transform=right_edge)
        axes.set(ylim=(len(names) - 0.4, -0.6), yticks=[])
        axes.text(0, 1.02, "points of accuracy", transform=axes.transAxes, ha="left", va="bottom")
        axes.locator_params(axis="x", nbins=6)
        axes.xaxis.set_major_formatter(lambda value, _: _with_sign(value, "g"))
        axes.grid(axis="x")
        return _svg(figure, "Change of each class's accuracy with its 95% interval")


def reliability_comparison(calibrations: Mapping[str, pd.DataFrame]) -> str:
    """The reliability of two networks by name: accuracy by confidence, with 95% intervals."""
    with matplotlib.style.context(STYLE):
        figure, axes = _canvas(height_in=3.6, left_in=0.5, right_in=0.3)
        axes.plot((0, 1), (0, 1), color=INK, linewidth=1, linestyle=(0, (4, 3)))
        for (name, calibration), color, marker in zip(calibrations.items(), (OTHER_DATA, DATA), "so", strict=True):
            bins = calibration[calibration["images"] > 0]
            axes.vlines(bins["confidence"], bins["accuracy_low"], bins["accuracy_high"], color=color, alpha=0.6)
            axes.plot(bins["confidence"], bins["accuracy"], f"-{marker}", color=color, markersize=5, label=name)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence")
        axes.text(-0.02, 1.06, "accuracy", transform=axes.transAxes, ha="left")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:.0%}")
        axes.grid()
        axes.legend(loc="upper left", frameon=False)
        return _svg(figure, "Accuracy by confidence of both runs, with 95% intervals")


def _mark_epochs(axes: Axes, training: pd.DataFrame) -> None:
    ends = training.groupby("epoch")["step"].max()
    starts = ends.shift(fill_value=0)
    every = -(-len(ends) // MOST_EPOCH_LABELS)
    for epoch in ends.index[::every]:
        axes.axvline(starts[epoch], color=INK, alpha=0.4, linewidth=0.8, linestyle=(0, (1, 3)))
        position = (starts[epoch] + ends[epoch]) / 2 if every == 1 else starts[epoch]
        label = f"epoch {epoch}" if len(ends) <= MOST_EPOCH_LABELS // 2 or epoch == ends.index[0] else str(epoch)
        axes.text(position, 1.01, label, transform=axes.get_xaxis_transform(), ha="center", va="bottom", alpha=0.75)


def _canvas(height_in: float, left_in: float, right_in: float) -> tuple[Figure, Axes]:
    """A figure with one set of axes, its margins in inches so that labels keep their room in a chart of any height."""
    top_in, bottom_in = 0.45, 0.4
    figure = Figure(figsize=(WIDTH_IN, height_in))
    width, height = WIDTH_IN - left_in - right_in, height_in - top_in - bottom_in
    box = (left_in / WIDTH_IN, bottom_in / height_in, width / WIDTH_IN, height / height_in)
    return figure, figure.add_axes(box)


def _alignment(share: float) -> str:
    return "left" if share < 0.15 else "right" if share > 0.85 else "center"


def _with_sign(value: float, kind: str) -> str:
    return f"{value:+{kind}}".replace("-", "−") if value else "0"


def _shortened(name: str) -> str:
    """A class name as one short line of characters that XML allows."""
    shown = "".join(sign if sign.isprintable() else " " for sign in name)
    return shown if len(shown) <= LONGEST_LABEL else f"{shown[: LONGEST_LABEL - 1]}…"


def _svg(figure: Figure, title: str) -> str:
    """The figure as an `<svg>` that takes its colour, font and width from the page around it."""
    drawing = StringIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": title}):
        warnings.filterwarnings("ignore", "Glyph")  # the reader's fonts draw the text, not matplotlib's
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawing, format="svg", transparent=True, metadata=nothing)
    _, _, svg = drawing.getvalue().partition("<svg ")
    svg = re.sub(r'width="\S+pt" height="\S+pt" ', "", svg, count=1)
    # An inline <style> would reach the whole page; the drawing's name takes its place.
    style = r"\s*<defs>\s*<style.*?</style>\s*</defs>"
    svg = re.sub(style, f"\n <title>{escape(title)}</title>", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # a page holds several charts, and ids must not repeat
    svg = re.sub(r"font-family: [^;<>]*; ", "", svg)
    svg = re.sub(rf"(fill|stroke): {INK}", r"\1: currentColor", svg)
    return f'<svg role="img" aria-label="{escape(title)}" {svg.strip()}'
