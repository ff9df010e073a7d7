"""`facedex-index calibrate`, as somebody types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from tests.indexer.calibration.populations import unit
from tests.indexer.evaluation.data_folder import galleries_of
from tests.indexer.evaluation.scripted_people import make_files
from typer.testing import CliRunner, Result

from facedex.indexer.cli import app
from facedex.indexer.cli_session import good_order
from facedex.indexer.enrolment import Enrol, VectorItem
from facedex.indexer.policy import DecisionPolicy, GalleryPolicy
from facedex.indexer.store.records import IdentityDetails
from facedex.indexer.vision.models import BUILTIN_EMBEDDER


def calibrate(data: Path, *words: object) -> Result:
    return CliRunner().invoke(app, ["--data", str(data), "calibrate", *(str(word) for word in words)])


def said(result: Result) -> str:
    """What was printed, whatever the width of the terminal."""
    return " ".join(result.output.split())


def drawn(people: int, dimension: int, *, seed: int = 0) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((people, dimension), np.float32))


@pytest.fixture
def staff(tmp_path: Path) -> Path:
    """A data folder with a gallery of 250 people."""
    data = tmp_path / "data"
    with galleries_of(data) as galleries:
        model = galleries.create("staff", GalleryPolicy()).model
        enroller = galleries.enroller(galleries.get("staff"))
        for number, vector in enumerate(drawn(250, model.dimension)):
            enroller.enrol(Enrol(IdentityDetails(f"person_{number}"), (VectorItem(vector, model.digest),)))
    return data


@pytest.fixture
def some_people(people: Path, tmp_path: Path) -> Path:
    """Eight people with two photographs each, and one photograph that is none."""
    files = {
        f"person_{number:03}/{take}.jpg": (people / f"person_{number:03}" / f"{take}.jpg").read_bytes()
        for number in range(1, 9)
        for take in (1, 2)
    }
    return make_files(tmp_path / "people", files | {"person_001/3.jpg": b"no picture"})


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    """Vectors of another engine: 300 people enrolled, with a probe each, and 400 strangers."""
    enrolled, strangers = drawn(300, 64), drawn(400, 64, seed=1)
    probes = unit(enrolled + 0.8 * drawn(300, 64, seed=2))
    names = [f"person_{number}" for number in range(300)]
    arrays: dict[str, Any] = {
        "vectors": np.concatenate([enrolled, probes, strangers]),
        "identities": np.array([*names, *names, *(f"stranger_{number}" for number in range(400))]),
        "role": np.array(["enrolled"] * 300 + ["probe"] * 700),
    }
    np.savez(tmp_path / "vectors.npz", **arrays)
    return tmp_path / "vectors.npz"


def test_vectors_of_another_engine_give_a_threshold_a_page_and_figures(embeddings: Path, tmp_path: Path) -> None:
    page, figures, points = (tmp_path / name for name in ("report.html", "figures.json", "det.csv"))
    files = ("--report", page, "--json", figures, "--csv", points)
    result = calibrate(tmp_path / "data", "--embeddings", embeddings, "--target-fpir", 0.05, *files)
    assert result.exit_code == 0
    document = json.loads(figures.read_text())
    assert f"At a cosine of {document['answer']['threshold']:.3f}" in said(result)
    assert document["answer"]["upper"] <= 0.05
    assert document["certificate"]["digest"] in said(result)
    assert document["verdict"] in page.read_text()
    assert points.read_text().startswith("threshold,fpir_lower,fpir,")
    assert not (tmp_path / "data").exists(), "no gallery is needed"


def test_a_target_beyond_the_data_is_refused_with_exit_code_3_and_what_is_missing(
    embeddings: Path, tmp_path: Path
) -> None:
    result = calibrate(tmp_path, "--embeddings", embeddings, "--target-fpir", 1e-5)
    assert result.exit_code == 3
    assert "calibrate with at least" in said(result)
    assert "the lowest that can be promised" in said(result)
    assert "Thresholds by target FPIR" in said(result)


def test_a_size_to_promise_for_takes_a_higher_threshold(embeddings: Path, tmp_path: Path) -> None:
    def threshold(*words: object) -> float:
        figures = tmp_path / "figures.json"
        calibrate(tmp_path, "--embeddings", embeddings, "--target-fpir", 0.1, "--json", figures, *words)
        return float(json.loads(figures.read_text())["answer"]["threshold"])

    assert threshold("--templates", 1_000) > threshold()


def test_a_gallery_is_calibrated_from_itself_and_keeps_the_certificate(staff: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    words = ("--from-gallery", "--gallery", "staff", "--target-fpir", 0.05, "--json", figures)
    result = calibrate(staff, *words)
    assert result.exit_code == 0
    assert "facedex galleries update staff --target-fpir 0.05" in said(result)
    answer = json.loads(figures.read_text())["answer"]
    with galleries_of(staff) as galleries:
        galleries.change_policy("staff", lambda _policy: GalleryPolicy(DecisionPolicy(target_fpir=0.05)))
        point = galleries.get("staff").operating_point()
    assert point.target_fpir == 0.05
    assert point.fpir is not None
    assert point.threshold >= answer["threshold"], "the server leaves room for a tenth more templates"


def test_a_refused_target_leaves_the_gallery_with_the_certificate_that_it_has(staff: Path) -> None:
    result = calibrate(staff, "--from-gallery", "--gallery", "staff", "--target-fpir", 0.0001)
    assert result.exit_code == 3
    with galleries_of(staff) as galleries:
        assert galleries.get("staff").certificate is None


def test_people_are_split_looked_at_and_their_failures_counted(some_people: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    result = calibrate(tmp_path / "data", some_people, "--target-fpir", 0.01, "--json", figures)
    assert result.exit_code == 3, "four strangers carry no such target"
    document = json.loads(figures.read_text())
    dataset = document["certificate"]["document"]["dataset"]
    assert (dataset["identities"], dataset["photographs"], dataset["failures_to_acquire"]) == (8, 17, 1)
    assert document["failures_to_acquire"][0]["person"] == "person_001"
    assert document["certificate"]["document"]["subject"]["model_name"] == BUILTIN_EMBEDDER
    assert "4 were strangers" in said(result)


def test_faces_are_on_the_page_only_where_crops_are_asked_for(some_people: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    calibrate(tmp_path / "data", some_people, "--report", page)
    assert "data:image" not in page.read_text()
    calibrate(tmp_path / "data", some_people, "--report", page, "--crops")
    assert page.read_text().count("data:image/jpeg") >= 8


def test_a_list_says_who_is_enrolled(some_people: Path, tmp_path: Path) -> None:
    roles = tmp_path / "roles.csv"
    roles.write_text("person,role\nperson_002,enrolled\nperson_003,stranger\nperson_004,stranger\n")
    result = calibrate(tmp_path / "data", some_people, "--split", roles)
    assert "1 people were enrolled with one photograph each, 2 were strangers. 5 are in no list" in said(result)


def test_cohorts_have_their_own_rates(embeddings: Path, tmp_path: Path) -> None:
    cohorts = tmp_path / "cohorts.csv"
    cohorts.write_text("person,cohort\nstranger_1,north\nstranger_2,south\nperson_1,south\n")
    result = calibrate(tmp_path, "--embeddings", embeddings, "--target-fpir", 0.1, "--cohorts", cohorts)
    assert result.exit_code == 0
    assert "By cohort, at the threshold" in said(result)
    assert "north" in said(result)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "name a folder with a folder a person"),
        (("missing",), "missing is no folder"),
        (("people", "--scores", "a.csv"), "name one of PEOPLE"),
        (("--scores", "a.csv", "--embeddings", "b.npz"), "name one of PEOPLE"),
        (("--scores", "a.csv"), "there is no such file"),
        (("--scores", "a.csv", "--gallery", "staff"), "a file does not say of which model it is"),
        (("--from-gallery",), "needs --gallery NAME"),
        (("--from-gallery", "--gallery", "nobody"), "nobody"),
        (("--from-gallery", "--gallery", "staff", "--split", "a.csv"), "the gallery says it"),
        (("people", "--target-fpir", "0"), "is a share between 0 and 1"),
        (("people", "--target-fpir", "1"), "is a share between 0 and 1"),
        (("people", "--report", "nowhere/report.html"), "there is no folder nowhere to write report.html into"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_exit_code_1(
    words: tuple[str, ...], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = calibrate(tmp_path / "data", *words)
    assert result.exit_code == 1
    assert problem in result.stderr
    assert result.stderr.count("\n") == 1


def test_ctrl_c_ends_in_good_order_and_says_that_nothing_was_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, good_order():
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130
    assert "stopped; nothing was kept" in capsys.readouterr().err
