"""A report on a terminal."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Column, Table

from facedex.indexer.calibration.certificate import TARGETS
from facedex.indexer.calibration.promise import FpirInterval
from facedex.indexer.calibration.uncertainty import RateInterval
from facedex.indexer.evaluation.report import counted, interval_text, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from facedex.indexer.calibration.certificate import SizeRow
    from facedex.indexer.calibration.correction import Difference
    from facedex.indexer.evaluation.labelled import Unusable
    from facedex.indexer.evaluation.report import Report

SHOWN_FAILURES = 20


def print_report(console: Console, report: Report) -> None:
    """The verdict, what it rests on, and which targets are kept at which size."""
    console.print(escape(report.verdict()), highlight=False)
    console.print(_facts_table(report), _sizes_table(report.sizes))
    if report.cohorts:
        console.print(_cohort_table(report))
    if report.failures:
        console.print(_failures_table(report.failures))
    for note in report.notes:
        console.print(escape(note), highlight=False)
    console.print(f"certificate {report.digest}", highlight=False)


def _facts_table(report: Report) -> Table:
    target = share(report.question.target_fpir)
    title = f"FPIR {target} in a gallery of {counted(report.question.gallery_templates)} templates"
    table = Table("", "", title=title, show_header=False, caption="in brackets: 95 % intervals")
    for name, value in facts(report):
        table.add_row(name, escape(value))
    return table


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """What was found and what was searched, a line each."""
    answer = report.answer
    if isinstance(answer, FpirInterval):
        yield "threshold", f"{answer.threshold:.3f}"
        yield "FPIR", interval_text(RateInterval(answer.lower, answer.estimate, answer.upper))
        yield "how it is known", answer.kind.value
    else:
        strictest = report.strictest()
        yield "the lowest that can be promised", f"{share(strictest.upper)}, at a cosine of {strictest.threshold:.3f}"
    if report.fnir is not None:
        yield "FNIR", interval_text(report.fnir)
    yield from _searched(report)
    yield from _corrected(report)


def _searched(report: Report) -> Iterator[tuple[str, str]]:
    evidence, dataset = report.table.evidence, report.certificate.dataset
    yield "searched", f"{dataset.source.value}: {counted(dataset.identities)} identities"
    yield "templates searched", counted(evidence.gallery_templates)
    strangers = f"{counted(evidence.non_mated_searches)} of {counted(evidence.searched_identities)} people"
    yield "non-mated searches", f"{strangers}, worth {counted(evidence.independent_searches)} independent ones"
    if evidence.doubtful_searches:
        yield "perhaps enrolled twice", f"{counted(evidence.doubtful_searches)} searches"
    yield "mated searches", counted(evidence.mated_searches)
    yield "failures to acquire", f"{counted(dataset.failures_to_acquire)} of {counted(dataset.photographs)}"


def _corrected(report: Report) -> Iterator[tuple[str, str]]:
    """What probes say that enrolment photographs did not: differences of medians, and what these do to both rates."""
    correction = report.certificate.correction
    if correction is None:
        return
    yield "strangers' scores, probes", _difference(correction.non_mated, correction.non_mated_searches)
    yield "mates' scores, probes", _difference(correction.mated, correction.mated_searches)
    if report.uncorrected is not None and report.threshold is not None:
        alone = report.uncorrected.fpir(report.threshold, gallery_templates=report.question.gallery_templates)
        yield "FPIR by the gallery alone", interval_text(RateInterval(alone.lower, alone.estimate, alone.upper))
        fnir = report.uncorrected.fnir(report.threshold)
        yield "FNIR by the gallery alone", "no mated searches" if fnir is None else interval_text(fnir)


def _difference(difference: Difference | None, searches: int) -> str:
    if difference is None:
        return f"{counted(searches)} searches; too few people, here or in the gallery, to tell"
    low, high = f"{difference.lower:+.3f}", f"{difference.upper:+.3f}"
    return f"{difference.estimate:+.3f} ({low} – {high}) in the median of {counted(searches)}"


def _sizes_table(sizes: Sequence[SizeRow]) -> Table:
    columns = [Column(share(target), justify="right", no_wrap=True) for target in TARGETS]
    table = Table(
        Column("templates", justify="right", no_wrap=True),
        *columns,
        title="Thresholds by target FPIR and size of the gallery",
        caption=LEGEND,
    )
    for templates, rows in groupby(sizes, key=lambda row: row.gallery_templates):
        table.add_row(short(templates), *(_coloured(row) for row in rows))
    return table


LEGEND = "* extrapolated, the others are measured; +n: refused, and how many further identities might carry it"


def size_cell(row: SizeRow) -> str:
    """A threshold, with a star where it is extrapolated; or how many identities are missing."""
    if row.threshold is None:
        return f"+{short(row.further_identities)}"
    return f"{row.threshold:.3f}" if row.measured else f"{row.threshold:.3f}*"


def short(number: int) -> str:
    """1 234 567 is 1.2 M."""
    for unit, size in (("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)):
        if number >= size:
            rounded = round(number / size, 1)
            return f"{rounded:.0f} {unit}" if rounded >= 10 or rounded.is_integer() else f"{rounded} {unit}"
    return str(number)


def _coloured(row: SizeRow) -> str:
    colour = "red" if row.threshold is None else "green" if row.measured else "yellow"
    return f"[{colour}]{size_cell(row)}[/]"


def _cohort_table(report: Report) -> Table:
    table = Table("cohort", "non-mated", "FPIR", "mated", "FNIR", title="By cohort, at the threshold")
    for each in report.cohorts:
        rates = ("–" if rate is None else interval_text(rate) for rate in (each.fpir, each.fnir))
        fpir, fnir = rates
        table.add_row(escape(each.name), counted(each.non_mated_searches), fpir, counted(each.mated_searches), fnir)
    return table


def _failures_table(failures: Sequence[Unusable]) -> Table:
    hidden = len(failures) - SHOWN_FAILURES
    table = Table(
        "photograph",
        "what to do",
        title=f"{counted(len(failures))} failures to acquire",
        caption=f"and {counted(hidden)} more" if hidden > 0 else None,
    )
    for each in failures[:SHOWN_FAILURES]:
        table.add_row(escape(str(each.photograph.path)), escape(each.message))
    return table
