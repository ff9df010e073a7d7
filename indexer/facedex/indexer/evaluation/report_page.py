"""A report as one HTML file that needs nothing else: no network, no script, no other file. It prints well."""

from __future__ import annotations

import base64
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

import cv2

from facedex.indexer.calibration.certificate import TARGETS
from facedex.indexer.calibration.errors import PromiseRefused
from facedex.indexer.evaluation.report import counted, interval_text, share
from facedex.indexer.evaluation.report_pictures import det_curve, fpir_by_size, score_histograms
from facedex.indexer.evaluation.report_table import LEGEND, facts, size_cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from facedex.indexer.calibration.certificate import SizeRow
    from facedex.indexer.evaluation.report import Pair, Report

    Crops = Mapping[Path, NDArray[np.uint8]]
    """Aligned faces (height, width, 3), BGR, by photograph."""

THRESHOLD_STEP = 25  # thousandths, in the table of thresholds
JPEG_QUALITY = 85
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

STYLE = """
body { font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", sans-serif; color: #1a1a1a; background: #fff;
       max-width: 66rem; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
.verdict { font-size: 1.15rem; border-left: 6px solid #1b5e9e; background: #f1f6fb; padding: .8rem 1.1rem; margin: 1rem 0; }
.verdict.refused { border-color: #b00020; background: #fdf1f2; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1.2rem; }
figure { margin: 0; break-inside: avoid; } figure svg { width: 100%; height: auto; }
figcaption, .note { color: #555; font-size: .88rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; break-inside: avoid; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .7rem; text-align: left; vertical-align: top; }
th { font-weight: 600; } tr:first-child th:not(:only-of-type) {
  border-bottom: 2px solid #999; } .figures td, .figures th { text-align: right; }
.measured { background: #e8f4ea; } .extrapolated { background: #fff4e0; } .missing { background: #fdeaec; color: #80101f; }
.pairs { display: flex; flex-wrap: wrap; gap: 0 3rem; }
.pairs td:last-child { white-space: nowrap; } .pairs img { height: 64px; border-radius: 4px; margin-right: 4px; }
code { font-size: .85rem; overflow-wrap: anywhere; }
@media print { body { margin: 0; max-width: none; font-size: 12px; } h2 { break-after: avoid; }
  .pictures { grid-template-columns: 1fr 1fr; } }
"""

HOW_TO_READ = (
    (
        "FPIR, the false positive identification rate",
        (
            "of a hundred searches of people who are not enrolled, so many return somebody. It grows with the gallery: each "
            "further template is one more person to be taken for."
        ),
    ),
    (
        "FNIR, the false negative identification rate",
        (
            "of a hundred searches of people who are enrolled, so many do not return them. A photograph without a usable face "
            "counts as a miss."
        ),
    ),
    (
        "95 % intervals",
        (
            "the data are a sample. With other people of the same kind the true rate lies inside in 95 of 100 cases. The "
            "threshold is chosen so that the upper limit, not the estimate, keeps the target."
        ),
    ),
    (
        "Measured or extrapolated",
        (
            "measured was counted, in a gallery of about this size. Extrapolated continues the tail of the highest scores, or "
            "reckons for another size of the gallery; it is no measurement."
        ),
    ),
    (
        "Refused",
        (
            "the data cannot carry this target. The number says how many further people would, if none of them scores higher "
            "than the highest so far."
        ),
    ),
)


def page_of(report: Report, *, crops: Crops | None = None) -> str:
    """The page; faces are shown only where crops are given."""
    sections = (
        _head(report),
        _pictures(report),
        _sizes(report.sizes),
        _thresholds(report),
        _pairs(report, crops or {}),
        _cohorts(report),
        _failures(report),
        _basis(report),
        _reading(),
    )
    body = "\n".join(section for section in sections if section)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n<title>Calibration of facedex</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _head(report: Report) -> str:
    refused = " refused" if isinstance(report.answer, PromiseRefused) else ""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts(report))
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in report.notes)
    return (
        f'<h1>Which threshold?</h1>\n<p class="verdict{refused}">{escape(report.verdict())}</p>\n'
        f"<table>{rows}</table>\n{notes}"
    )


def _pictures(report: Report) -> str:
    drawn = (
        (
            det_curve(report),
            "Detection error trade-off in the gallery that was searched: further down and left is better.",
        ),
        (fpir_by_size(report), "What this threshold would do in a smaller or larger gallery of people like these."),
        (score_histograms(report), "Where scores of strangers and of mates overlap, every threshold makes errors."),
    )
    figures = (
        f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>" for svg, caption in drawn if svg is not None
    )
    return f'<h2>Pictures</h2>\n<div class="pictures">{"".join(figures)}</div>'


def _sizes(sizes: Sequence[SizeRow]) -> str:
    head = "".join(f"<th>FPIR {share(target)}</th>" for target in TARGETS)
    rows = (
        f"<tr><th>{counted(templates)}</th>{''.join(_size(row) for row in rows)}</tr>"
        for templates, rows in groupby(sizes, key=lambda row: row.gallery_templates)
    )
    return (
        f'<h2>Thresholds by the size of the gallery</h2>\n<table class="figures"><tr><th>templates</th>{head}</tr>'
        f'{"".join(rows)}</table>\n<p class="note">{escape(LEGEND)}</p>'
    )


def _size(row: SizeRow) -> str:
    kind = "missing" if row.threshold is None else "measured" if row.measured else "extrapolated"
    return f'<td class="{kind}">{size_cell(row)}</td>'


def _thresholds(report: Report) -> str:
    rows = [
        (
            f"{row.threshold:.3f}",
            interval_text(row.fpir),
            row.kind.value,
            "–" if row.fnir is None else interval_text(row.fnir),
        )
        for row in report.table.rows[::THRESHOLD_STEP]
        if 1e-6 < row.fpir.estimate < 0.999  # beyond, everybody or nobody is returned
    ]
    size = counted(report.table.evidence.gallery_templates)
    title = f"Error rates by threshold, in the gallery of {size} templates that was searched"
    return _table(title, ("cosine", "FPIR", "how it is known", "FNIR"), rows, style="figures")


def _pairs(report: Report, crops: Crops) -> str:
    lists = (
        ("Strangers who resemble somebody most", "stranger", report.hardest_non_mated()),
        ("Mates who resemble themselves least", "probe", report.worst_mated()),
    )
    columns = (
        _table(
            title, ("cosine", first, "enrolled", *(("faces",) if crops else ())), (_pair(each, crops) for each in pairs)
        )
        for title, first, pairs in lists
        if pairs
    )
    advice = "Look at the first of them: a stranger who scores like a mate may be enrolled under another name."
    return f'<div class="pairs">{"".join(f"<div>{each}</div>" for each in columns)}</div><p class="note">{advice}</p>'


def _pair(pair: Pair, crops: Crops) -> tuple[str, ...]:
    texts = (f"{pair.score:.3f}", escape(pair.probe), escape(pair.enrolled))
    if not crops:
        return texts
    photographs = (pair.probe_photograph, pair.enrolled_photograph)
    shown = (crops[path] for path in photographs if path is not None and path in crops)
    return (*texts, "".join(_image(crop) for crop in shown))


def _image(crop: NDArray[np.uint8]) -> str:
    _, encoded = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return f'<img alt="face" src="data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}">'


def _cohorts(report: Report) -> str:
    rows = [
        (
            escape(each.name),
            counted(each.non_mated_searches),
            "–" if each.fpir is None else interval_text(each.fpir),
            counted(each.mated_searches),
            "–" if each.fnir is None else interval_text(each.fnir),
        )
        for each in report.cohorts
    ]
    return _table("By cohort, at the threshold", ("cohort", "non-mated", "FPIR", "mated", "FNIR"), rows) if rows else ""


def _failures(report: Report) -> str:
    if not report.failures:
        return ""
    reasons = sorted((each.message, each.photograph.identity_id) for each in report.failures)
    rows = ((escape(person), escape(message)) for message, person in reasons[:50])
    return _table(f"{counted(len(report.failures))} failures to acquire", ("person", "why"), rows)


def _basis(report: Report) -> str:
    certificate = report.certificate
    subject, tail = certificate.subject, certificate.tail
    limits = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in subject.quality_limits.items())
    rows = (
        ("certificate", f"<code>{report.digest}</code>"),
        ("made", f"{escape(certificate.created_at)} by {escape(certificate.software)}"),
        ("embedder", f"{escape(subject.model_name)} <code>{escape(subject.model_digest)}</code>"),
        ("detector", f"{escape(subject.detector_name)} <code>{escape(subject.detector_digest)}</code>"),
        ("quality gate", escape(limits) or "none is known"),
        ("an identity's score", escape(subject.fusion)),
        ("data", f"{escape(certificate.dataset.source.value)} <code>{escape(certificate.dataset.digest)}</code>"),
        ("tail", "none fits" if tail is None else _figures(tail)),
    )
    note = '<p class="note">With another model, detector or quality gate the promise does not hold, and is refused.</p>'
    return _table("What it rests on", ("", ""), rows) + note


def _figures(tail: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in tail.items())


def _reading() -> str:
    entries = "".join(f"<dt><b>{escape(word)}</b></dt><dd>{escape(text)}</dd>" for word, text in HOW_TO_READ)
    return f"<h2>How to read this</h2>\n<dl>{entries}</dl>"


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, style: str = "") -> str:
    """Cells are HTML already."""
    head = "".join(f"<th>{name}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<h2>{escape(title)}</h2>\n<table class="{style}"><tr>{head}</tr>{body}</table>'
