"""The charts as inline SVG, for light and dark pages; the same table gives the same bytes."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO

import matplotlib.style
import pandas as pd
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from tasks.core.evaluation.paired import Comparison

INK = "#010203"  # replaced with currentColor: text and axes take the color of the page
BLUE, ORANGE = "#4a86cf", "#c8762b"  # contrast above 3:1 on white and on near-black
WIDTH_IN = 5.0
MAX_LABEL_LENGTH = 16
MAX_EPOCH_LABELS = 8

STYLE: list[str | dict[str, object]] = [
    "default",  # ignores the user's matplotlibrc
    {
        "svg.fonttype": "none",
        "text.parse_math": False,  # a class name may be $x$
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
        tested = per_class.reset_index(drop=True).query("support > 0")
        values = [f"{tested['accuracy'][row]:.1%}" if row in tested.index else "–" for row in range(len(per_class))]
        figure, axes = _row_axes(per_class["class"], values)
        axes.barh(tested.index, tested["accuracy"], height=0.62, color=BLUE)
        axes.hlines(tested.index, tested["accuracy_low"], tested["accuracy_high"], color=INK, linewidth=1.5)
        overall = tested["correct"].sum() / tested["support"].sum()
        axes.axvline(overall, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        alignment = "left" if overall < 0.15 else "right" if overall > 0.85 else "center"
        axes.text(overall, -0.8, f"overall {overall:.1%}", ha=alignment, va="bottom")
        axes.set(xlim=(0, 1), xticks=[0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter("{x:.0%}")
        return _svg(figure, "Accuracy of each class with its 95% interval")


def difference_chart(comparison: Comparison) -> str:
    """Differences in accuracy with their 95% intervals; a dot is filled where the interval excludes 0."""
    with matplotlib.style.context(STYLE):
        names = ["all", *(each.class_name for each in comparison.per_class)]
        differences = [each.difference for each in (comparison, *comparison.per_class)]
        figure, axes = _row_axes(names, [_signed(100 * each.value, ".1f") for each in differences])
        axes.axvline(0, color=INK, linewidth=1)
        for row, each in enumerate(differences):
            fill = "full" if each.low > 0 or each.high < 0 else "none"
            axes.hlines(row, 100 * each.low, 100 * each.high, color=BLUE, linewidth=2)
            axes.plot(100 * each.value, row, "o", color=BLUE, markersize=7, fillstyle=fill)
        axes.text(0, 1.02, "points of accuracy", transform=axes.transAxes, ha="left", va="bottom")
        axes.locator_params(axis="x", nbins=6)
        axes.xaxis.set_major_formatter(lambda value, _: _signed(value, "g"))
        return _svg(figure, "Change of each class's accuracy with its 95% interval")


def loss_chart(training: pd.DataFrame) -> str:
    """The running loss over the training steps."""
    with matplotlib.style.context(STYLE):
        figure, axes = _step_axes(training, "running loss")
        steps, losses = training["step"].to_numpy(), training["running_loss"].to_numpy()
        axes.plot(steps, losses, color=BLUE, linewidth=2, clip_on=False, marker="o", markevery=[-1])
        axes.annotate(f"{losses[-1]:.3f}", (steps[-1], losses[-1]), (6, 0), textcoords="offset points", va="center")
        axes.locator_params(axis="y", nbins=5)
        return _svg(figure, "Running loss over the training steps")


def learning_chart(training: pd.DataFrame) -> str:
    """The accuracy on the training images over the training steps; dots are the accuracy on held-out images."""
    with matplotlib.style.context(STYLE):
        figure, axes = _step_axes(training, "accuracy while training")
        axes.plot(training["step"], training["running_accuracy"], color=BLUE, linewidth=2, clip_on=False)
        held_out = training.dropna(subset=["validation_accuracy"])
        axes.plot(held_out["step"], held_out["validation_accuracy"], "o", color=INK, markersize=5, clip_on=False)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter("{x:.0%}")
        return _svg(figure, "Accuracy while training over the training steps")


def reliability_chart(calibration: pd.DataFrame) -> str:
    """The accuracy in each bin of confidence, with its 95% interval."""
    with matplotlib.style.context(STYLE):
        figure, axes = _reliability_axes()
        bins = calibration[calibration["images"] > 0]
        axes.bar(bins["low"], bins["accuracy"], bins["high"] - bins["low"], align="edge", color=BLUE, alpha=0.35)
        axes.vlines(bins["confidence"], bins["accuracy_low"], bins["accuracy_high"], color=INK, linewidth=1.5)
        axes.plot(bins["confidence"], bins["accuracy"], "o", color=BLUE, markersize=5, clip_on=False)
        return _svg(figure, "Accuracy by confidence, with 95% intervals")


def reliability_comparison(calibrations: Mapping[str, pd.DataFrame]) -> str:
    """The accuracy in each bin of confidence for two networks, by name, with 95% intervals."""
    with matplotlib.style.context(STYLE):
        figure, axes = _reliability_axes()
        for (name, calibration), color, marker in zip(calibrations.items(), (ORANGE, BLUE), "so", strict=True):
            bins = calibration[calibration["images"] > 0]
            axes.vlines(bins["confidence"], bins["accuracy_low"], bins["accuracy_high"], color=color, alpha=0.6)
            axes.plot(bins["confidence"], bins["accuracy"], f"-{marker}", color=color, markersize=5, label=name)
        axes.legend(loc="upper left", frameon=False)
        return _svg(figure, "Accuracy by confidence of both runs, with 95% intervals")


def _row_axes(names: Iterable[str], values: Sequence[str]) -> tuple[Figure, Axes]:
    labels = [_truncated(name) for name in names]
    left_in = 0.15 + 0.09 * max(map(len, labels))
    figure, axes = _axes(height_in=0.85 + 0.33 * len(labels), left_in=left_in, right_in=0.75)
    at_left = axes.get_yaxis_transform()
    at_right = blended_transform_factory(figure.transFigure, axes.transData)
    for row, (label, value) in enumerate(zip(labels, values, strict=True)):
        axes.text(-0.02, row, label, ha="right", va="center", transform=at_left)
        axes.text(0.99, row, value, ha="right", va="center", transform=at_right)
    axes.set(ylim=(len(labels) - 0.4, -0.6), yticks=[])
    axes.grid(axis="x")
    return figure, axes


def _step_axes(training: pd.DataFrame, title: str) -> tuple[Figure, Axes]:
    """Axes over the training steps, with a line at the start of each epoch."""
    figure, axes = _axes(height_in=3.1, left_in=0.5, right_in=0.55)
    axes.set_xlim(0, training["step"].iloc[-1])
    ends = training.groupby("epoch")["step"].max()
    starts = ends.shift(fill_value=0)
    every = -(-len(ends) // MAX_EPOCH_LABELS)
    for epoch in ends.index[::every]:
        axes.axvline(starts[epoch], color=INK, alpha=0.4, linewidth=0.8, linestyle=(0, (1, 3)))
        x = (starts[epoch] + ends[epoch]) / 2 if every == 1 else starts[epoch]
        label = f"epoch {epoch}" if len(ends) <= MAX_EPOCH_LABELS // 2 or epoch == ends.index[0] else str(epoch)
        axes.text(x, 1.01, label, transform=axes.get_xaxis_transform(), ha="center", va="bottom", alpha=0.75)
    axes.text(-0.02, 1.13, title, transform=axes.transAxes, ha="left")
    axes.set_xlabel("training step")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.grid(axis="y")
    return figure, axes


def _reliability_axes() -> tuple[Figure, Axes]:
    """Axes of accuracy over confidence, with the diagonal of perfect calibration."""
    figure, axes = _axes(height_in=3.6, left_in=0.5, right_in=0.3)
    axes.plot((0, 1), (0, 1), color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence")
    axes.text(-0.02, 1.06, "accuracy", transform=axes.transAxes, ha="left")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:.0%}")
    axes.grid()
    return figure, axes


def _axes(height_in: float, left_in: float, right_in: float) -> tuple[Figure, Axes]:
    """A figure with one set of axes; its margins are in inches, so labels fit in a chart of any height."""
    top_in, bottom_in = 0.45, 0.4
    figure = Figure(figsize=(WIDTH_IN, height_in))
    width, height = WIDTH_IN - left_in - right_in, height_in - top_in - bottom_in
    box = (left_in / WIDTH_IN, bottom_in / height_in, width / WIDTH_IN, height / height_in)
    return figure, figure.add_axes(box)


def _signed(value: float, number_format: str) -> str:
    return f"{value:+{number_format}}".replace("-", "−") if value else "0"


def _truncated(name: str) -> str:
    """A class name as a short label without characters that XML does not allow."""
    label = "".join(letter if letter.isprintable() else " " for letter in name)
    return label if len(label) <= MAX_LABEL_LENGTH else f"{label[: MAX_LABEL_LENGTH - 1]}…"


def _svg(figure: Figure, title: str) -> str:
    """The figure as an `<svg>` element that takes its color, font and width from the page."""
    drawing = StringIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": title}):
        warnings.filterwarnings("ignore", "Glyph")  # the browser draws the text
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawing, format="svg", transparent=True, metadata=no_metadata)
    _, _, svg = drawing.getvalue().partition("<svg ")
    svg = re.sub(r'width="\S+pt" height="\S+pt" ', "", svg, count=1)
    # An inline <style> would apply to the whole page: the title replaces it.
    style = r"\s*<defs>\s*<style.*?</style>\s*</defs>"
    svg = re.sub(style, f"\n <title>{escape(title)}</title>", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # ids must be unique on a page with several charts
    svg = re.sub(r"font-family: [^;<>]*; ", "", svg)
    svg = re.sub(rf"(fill|stroke): {INK}", r"\1: currentColor", svg)
    return f'<svg role="img" aria-label="{escape(title)}" {svg.strip()}'
