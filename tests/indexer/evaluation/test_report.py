"""A report says what the certificate promises, in words, figures and pictures, and shows nobody's face unasked."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rcParams
from rich.console import Console
from tests.indexer.calibration.populations import TEMPLATES
from tests.indexer.calibration.tables import certificate, drawn_searches

from facedex.indexer.calibration.correction import ProbeCorrection
from facedex.indexer.calibration.errors import PromiseRefused
from facedex.indexer.calibration.metrics import fpir
from facedex.indexer.calibration.promise import FpirInterval
from facedex.indexer.calibration.scores import MatedSearches, Searches
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.report import Report, answered, cohorts_of, share
from facedex.indexer.evaluation.report_document import document_of, write_csv
from facedex.indexer.evaluation.report_page import page_of
from facedex.indexer.evaluation.report_table import print_report, short
from facedex.indexer.evaluation.searched import Labels

SEARCHES = drawn_searches()
CERTIFICATE = certificate(SEARCHES)
NAMES = {number: f"person <{number}>" for number in range(TEMPLATES + 500)}
LABELS = Labels(
    names=NAMES,
    non_mated=tuple(Path(f"/private/strangers/{row}.jpg") for row in range(500)),
    mated=tuple(Path(f"/private/mates/{row}.jpg") for row in range(TEMPLATES)),
    templates={number: Path(f"/private/enrolled/{number}.jpg") for number in range(TEMPLATES)},
)


def report(target_fpir: float, *, gallery_templates: int | None = None, searches: Searches = SEARCHES) -> Report:
    return answered(CERTIFICATE, searches, LABELS, target_fpir=target_fpir, gallery_templates=gallery_templates)


KEPT, REFUSED = report(0.05), report(1e-4)


class Page(HTMLParser):
    """What a browser would open, and the text that it would show."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "action"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def printed(one: Report) -> str:
    console = Console(width=120, record=True, quiet=True)
    console.quiet = False
    with console.capture() as capture:
        print_report(console, one)
    return capture.get()


def test_the_threshold_is_the_one_that_the_server_resolves() -> None:
    assert KEPT.answer == CERTIFICATE.table.resolve(0.05, gallery_templates=TEMPLATES)
    assert KEPT.threshold is not None
    assert fpir(SEARCHES.non_mated, threshold=KEPT.threshold) <= 0.05


def test_a_size_that_is_asked_for_is_the_one_that_is_promised() -> None:
    larger = report(0.05, gallery_templates=2 * TEMPLATES)
    assert larger.answer == CERTIFICATE.table.resolve(0.05, gallery_templates=2 * TEMPLATES)


def test_the_verdict_names_threshold_rates_and_how_they_are_known() -> None:
    assert KEPT.verdict().startswith(f"At a cosine of {KEPT.threshold:.3f}, at most 5 % of strangers")
    assert "measured" in KEPT.verdict()
    assert "extrapolated, not measured" in report(0.05, gallery_templates=2 * TEMPLATES).verdict()


def test_a_refusal_says_how_many_people_are_missing_and_what_can_be_promised() -> None:
    assert isinstance(REFUSED.answer, PromiseRefused)
    assert f"at least {REFUSED.answer.further_identities} further identities" in REFUSED.verdict()
    strictest = REFUSED.strictest()
    resolved = CERTIFICATE.table.resolve(strictest.upper, gallery_templates=TEMPLATES)
    assert resolved.threshold == strictest.threshold
    with pytest.raises(PromiseRefused):
        CERTIFICATE.table.resolve(0.999 * strictest.upper, gallery_templates=TEMPLATES)
    assert f"{share(strictest.upper)}, at a cosine of {strictest.threshold:.3f}" in printed(REFUSED)


def test_the_hardest_pairs_are_the_strangers_with_the_highest_scores() -> None:
    hardest = KEPT.hardest_non_mated()
    assert [pair.score for pair in hardest] == sorted(SEARCHES.non_mated.top_scores.tolist(), reverse=True)[:10]
    row = int(SEARCHES.non_mated.top_scores.argmax())
    assert hardest[0].probe == NAMES[int(SEARCHES.non_mated.probe_identities[row])]
    assert hardest[0].probe_photograph == LABELS.non_mated[row]
    nearest = int(SEARCHES.non_mated.nearest_identities[row])
    assert (hardest[0].enrolled, hardest[0].enrolled_photograph) == (NAMES[nearest], LABELS.templates[nearest])


def test_failures_to_acquire_are_no_hard_pairs() -> None:
    failed = Searches(SEARCHES.non_mated, SEARCHES.mated.with_failures(np.arange(5)))
    assert report(0.05, searches=failed).worst_mated() == KEPT.worst_mated()


def test_cohorts_are_counted_at_the_threshold() -> None:
    members = {NAMES[number]: "even" if number % 2 == 0 else "odd" for number in NAMES}
    even, odd = cohorts_of(KEPT, members)
    assert (even.name, odd.name) == ("even", "odd")
    assert even.non_mated_searches + odd.non_mated_searches == 500
    assert even.fpir is not None
    assert even.fnir is not None
    assert KEPT.threshold is not None
    rows = SEARCHES.non_mated.probe_identities % 2 == 0
    assert even.fpir.estimate == pytest.approx(fpir(SEARCHES.non_mated.only(rows), threshold=KEPT.threshold))
    mates = SEARCHES.mated.mate_scores[SEARCHES.mated.probe_identities % 2 == 0]
    assert even.fnir.estimate == pytest.approx(float((mates < KEPT.threshold).mean()), abs=1e-8)


def test_cohorts_of_nobody_who_was_searched_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="names nobody who was searched"):
        cohorts_of(KEPT, {"somebody else": "north"})


@pytest.mark.parametrize("one", [KEPT, REFUSED], ids=["kept", "refused"])
def test_the_page_needs_nothing_but_itself(one: Report) -> None:
    html = page_of(one)
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert all(source.startswith("#") for source in page.sources)
    assert not re.search(r"@import|url\((?!#)", html)
    assert "default-src 'none'" in html


def test_the_page_says_the_verdict_and_shows_three_pictures() -> None:
    page = Page(page_of(KEPT))
    assert KEPT.verdict() in page.text
    assert page.tags.count("svg") == 3
    assert page.tags.index("svg") > page.tags.index("p")
    assert KEPT.digest in page.text


def test_a_refused_target_has_no_picture_of_what_its_threshold_does() -> None:
    page = Page(page_of(REFUSED))
    assert REFUSED.verdict() in page.text
    assert page.tags.count("svg") == 2


def test_without_mated_searches_there_is_no_trade_off_to_draw() -> None:
    nobody = MatedSearches(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
    searches = Searches(SEARCHES.non_mated, nobody)
    made = certificate(searches)
    one = answered(made, searches, Labels(), target_fpir=0.05, gallery_templates=None)
    page = Page(page_of(one))
    assert page.tags.count("svg") == 2
    assert "FNIR" in page.text, "how to read it is told all the same"
    assert one.fnir is None
    assert "misses" not in one.verdict()


def test_names_are_text_and_never_markup() -> None:
    html = page_of(KEPT)
    assert "person <" not in html
    assert "person &lt;" in html


def test_no_face_and_no_path_is_on_the_page_unless_crops_are_given() -> None:
    assert "/private" not in page_of(KEPT)
    assert "data:image" not in page_of(KEPT)
    pair = KEPT.hardest_non_mated()[0]
    assert pair.probe_photograph is not None
    crops = {pair.probe_photograph: np.zeros((8, 8, 3), np.uint8)}
    assert page_of(KEPT, crops=crops).count("data:image/jpeg;base64,") == 1


def test_drawing_leaves_the_settings_of_the_drawing_library_alone() -> None:
    settings: Any = rcParams
    names = [name for name in settings if "backend" not in name]  # asking for that one already sets it
    before = [settings[name] for name in names]
    page_of(KEPT)
    assert [settings[name] for name in names] == before


def test_the_same_report_is_the_same_page() -> None:
    assert page_of(KEPT) == page_of(KEPT)


@pytest.mark.parametrize("one", [KEPT, REFUSED], ids=["kept", "refused"])
def test_the_document_holds_every_figure_and_no_path(one: Report) -> None:
    document = json.loads(json.dumps(document_of(one), allow_nan=False))
    assert document["certificate"]["document"] == json.loads(json.dumps(CERTIFICATE.to_json()))
    assert document["certificate"]["digest"] == CERTIFICATE.digest
    assert document["answer"]["resolved"] is isinstance(one.answer, FpirInterval)
    assert "/private" not in json.dumps(document)


def test_the_csv_holds_the_det_points(tmp_path: Path) -> None:
    write_csv(KEPT, tmp_path / "det.csv")
    with (tmp_path / "det.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(CERTIFICATE.table.rows)
    at_threshold = next(row for row in rows if float(row["threshold"]) == KEPT.threshold)
    assert isinstance(KEPT.answer, FpirInterval)
    assert float(at_threshold["fpir_upper"]) == pytest.approx(KEPT.answer.upper)
    assert KEPT.fnir is not None
    assert float(at_threshold["fnir"]) == KEPT.fnir.estimate


def test_the_terminal_shows_each_target_at_each_size() -> None:
    text = printed(KEPT)
    assert KEPT.verdict() in " ".join(text.split())
    for row in CERTIFICATE.sizes():
        assert f"+{short(row.further_identities)}" in text if row.threshold is None else f"{row.threshold:.3f}" in text


def test_a_correction_by_probes_is_told_with_what_the_gallery_alone_said() -> None:
    probes = drawn_searches(seed=1, strangers=40, noise=1.2)
    certified = replace(CERTIFICATE, correction=ProbeCorrection.of(SEARCHES, probes))
    one = replace(KEPT, certificate=certified, uncorrected=CERTIFICATE.table)
    text = printed(one)
    assert "strangers' scores, probes" in text
    assert "in the median of 40" in text
    assert "FNIR by the gallery alone" in text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.01, "1 %"), (0.1234, "12 %"), (0.01234, "1.2 %"), (1.234e-5, "0.0012 %")],
)
def test_rates_are_written_with_two_digits_however_small(rate: float, text: str) -> None:
    assert share(rate) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (7, "7"),
        (999, "999"),
        (1_234, "1.2 k"),
        (9_960, "10 k"),
        (99_600, "100 k"),
        (443_000, "443 k"),
        (1_234_567, "1.2 M"),
    ],
)
def test_counts_are_shortened_for_the_table_of_sizes(number: int, text: str) -> None:
    assert short(number) == text
