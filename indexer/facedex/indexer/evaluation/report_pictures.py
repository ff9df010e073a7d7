"""The pictures of a calibration report, as SVG to be put into a page."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from facedex.indexer.calibration.promise import FpirInterval, Kind
from facedex.indexer.evaluation.pictures import drawing_library, empty_figure
from facedex.indexer.evaluation.report import share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from facedex.indexer.calibration.operating_table import OperatingRow
    from facedex.indexer.evaluation.report import Report

WIDTH_INCHES, HEIGHT_INCHES = 6.4, 4.2
LEAST_RATE = 1e-5
"""Where the logarithmic axes end."""
MEASURED, EXTRAPOLATED, NON_MATED, TARGET = "#1b5e9e", "#c05c00", "#777777", "#b00020"
SIZES = np.geomspace(100, 10_000_000, 101)
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fontsize": 9,
}


def det_curve(report: Report) -> str | None:
    """FNIR against FPIR, both logarithmic, with the band of their 95 % intervals; None without mated searches."""
    if not report.table.evidence.mated_searches:
        return None
    return _svg(lambda axes: _draw_det(axes, report), name="det")


def fpir_by_size(report: Report) -> str | None:
    """FPIR at the threshold, from a hundred to ten million templates; None where there is no threshold."""
    if report.threshold is None:
        return None
    return _svg(lambda axes: _draw_sizes(axes, report), name="sizes")


def score_histograms(report: Report) -> str:
    """Top scores of strangers and scores of mates, each a share of its searches."""
    return _svg(lambda axes: _draw_histograms(axes, report), name="scores")


def _svg(draw: Callable[[Any], None], *, name: str) -> str:
    """Drawn with settings that hold for this picture alone; `name` keeps the ids of several pictures apart."""
    with drawing_library("matplotlib").rc_context(STYLE | {"svg.hashsalt": name}):
        figure = empty_figure(width_inches=WIDTH_INCHES, height_inches=HEIGHT_INCHES)
        figure.set_layout_engine("constrained")
        draw(figure.add_subplot())
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return _without_prolog(written.getvalue(), name)


def _without_prolog(svg: str, name: str) -> str:
    inline = svg[svg.index("<svg") :]
    return inline.replace('id="figure_1"', f'id="{name}"').replace('id="axes_1"', f'id="{name}_axes"')


def _draw_det(axes: Any, report: Report) -> None:
    rows = [row for row in report.table.rows if row.fnir is not None]
    lower, middle, upper = (_curve(rows, limit) for limit in ("lower", "estimate", "upper"))
    least_x, least_y = _least(middle[:, 0]), _least(middle[:, 1])
    corners = np.clip(np.concatenate([lower, upper[::-1]]), [least_x, least_y], 1)
    axes.fill(corners[:, 0], corners[:, 1], color=MEASURED, alpha=0.15, linewidth=0, label="95 % intervals")
    measured = np.array([row.kind is Kind.MEASURED for row in rows])
    shown = np.where(middle.min(axis=1, keepdims=True) > 0, middle, np.nan)
    _plot_parts(axes, shown[:, 0], shown[:, 1], measured)
    _logarithmic(axes, least_x=least_x, least_y=least_y)
    if report.threshold is not None and report.fnir is not None:
        fpir = report.table.row_at(report.threshold).fpir.estimate
        axes.plot(max(fpir, least_x), max(report.fnir.estimate, least_y), "o", color=TARGET, clip_on=False, zorder=5)
        axes.plot([], [], "o", color=TARGET, label=f"cosine {report.threshold:.3f}")
    axes.set(xlabel="FPIR: strangers taken for somebody", ylabel="FNIR: enrolled people missed")
    axes.legend(loc="lower left")


def _curve(rows: Sequence[OperatingRow], limit: str) -> NDArray[np.float64]:
    """FPIR and FNIR (n, 2) at one of the limits."""
    return np.array([[getattr(row.fpir, limit), getattr(row.fnir, limit)] for row in rows], np.float64)


def _least(rates: NDArray[np.float64]) -> float:
    """Where a logarithmic axis ends: below the smallest rate that is not 0, and not far below what anybody asks for."""
    positive = rates[rates > 0]
    return max(LEAST_RATE, float(positive.min()) / 2) if len(positive) else 1e-3


def _logarithmic(axes: Any, *, least_x: float, least_y: float) -> None:
    axes.set(xscale="log", yscale="log", xlim=(least_x, 1), ylim=(least_y, 1))
    percent = drawing_library("matplotlib.ticker").FuncFormatter(_percent)
    axes.xaxis.set_major_formatter(percent)
    axes.yaxis.set_major_formatter(percent)
    axes.minorticks_off()


def _plot_parts(axes: Any, x: NDArray[np.float64], y: NDArray[np.float64], measured: NDArray[np.bool_]) -> None:
    """What was counted as a line, what was extrapolated dashed."""
    if measured.any():
        axes.plot(np.where(measured, x, np.nan), y, color=MEASURED, linewidth=2, label="measured")
    if not measured.all():
        axes.plot(np.where(measured, np.nan, x), y, "--", color=EXTRAPOLATED, linewidth=2, label="extrapolated")


def _draw_sizes(axes: Any, report: Report) -> None:
    if not isinstance(report.answer, FpirInterval):
        return
    threshold, target = report.answer.threshold, report.question.target_fpir
    found = [report.table.fpir(threshold, gallery_templates=round(size)) for size in SIZES.tolist()]
    rates = np.array([[each.lower, each.estimate, each.upper] for each in found])
    least = _least(rates[:, 1])
    axes.fill_between(
        SIZES,
        rates[:, 0].clip(least),
        rates[:, 2].clip(least),
        color=MEASURED,
        alpha=0.15,
        linewidth=0,
        label="95 % interval",
    )
    measured = np.array([each.kind is Kind.MEASURED for each in found])
    _plot_parts(axes, SIZES, rates[:, 1], measured)
    axes.axhline(target, color=TARGET, linewidth=1, label=f"target {share(target)}")
    axes.axvline(
        report.question.gallery_templates, color=TARGET, linewidth=1, linestyle=":", label="the gallery asked for"
    )
    _logarithmic(axes, least_x=0.5, least_y=least)
    axes.set(
        xlim=(SIZES[0], SIZES[-1]), xlabel="templates in the gallery", ylabel=f"FPIR at a cosine of {threshold:.3f}"
    )
    thousands = drawing_library("matplotlib.ticker").FuncFormatter(_size_text)
    axes.xaxis.set_major_formatter(thousands)
    axes.legend(loc="lower right")


def _percent(rate: float, _place: object) -> str:
    return share(rate)


def _size_text(size: float, _place: object) -> str:
    for unit, one in ((" M", 1e6), (" k", 1e3)):
        if size >= one:
            return f"{size / one:g}{unit}"
    return f"{size:g}"


def _draw_histograms(axes: Any, report: Report) -> None:
    non_mated, mated = report.searches.non_mated.top_scores, report.searches.mated.mate_scores
    drawn = [
        (scores[np.isfinite(scores)], len(scores), colour, name)
        for scores, colour, name in ((non_mated, NON_MATED, "strangers, best score"), (mated, MEASURED, "mates"))
    ]
    everything = np.concatenate([scores for scores, *_ in drawn])
    edges = np.linspace(float(everything.min()), float(everything.max()) + 1e-6, 61)
    for scores, count, colour, name in drawn:
        if len(scores):
            axes.hist(scores, edges, weights=np.full(len(scores), 1 / count), color=colour, alpha=0.55, label=name)
    if report.threshold is not None:
        axes.axvline(report.threshold, color=TARGET, label=f"threshold {report.threshold:.3f}")
    axes.set(xlabel="cosine", ylabel="share of the searches")
    axes.yaxis.set_major_formatter(drawing_library("matplotlib.ticker").FuncFormatter(_percent))
    axes.legend(loc="upper right")
