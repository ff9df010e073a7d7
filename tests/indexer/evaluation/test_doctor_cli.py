"""`facedex-index doctor`, as somebody types it."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.indexer.calibration.populations import unit
from tests.indexer.evaluation.data_folder import galleries_of
from typer.testing import CliRunner, Result

from facedex.indexer.cli import app
from facedex.indexer.policy import GalleryPolicy
from facedex.indexer.store.records import IdentityDetails, NewEnrolment, NewTemplate
from facedex.indexer.vision.face import Quality

SHARP = Quality(0.9, 100.0, 200.0, 120.0, 0.0, 0.0, 0.0)
BLURRED = replace(SHARP, sharpness=1.0)


def doctor(data: Path, *words: object, answers: str = "") -> Result:
    typed = ["--data", str(data), "doctor", "--gallery", "staff", *(str(word) for word in words)]
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, typed, input=answers)


def findings(data: Path, *words: object) -> dict[str, dict[str, Any]]:
    """By name, as --json tells them; without who happens to be the nearest stranger of a few people more than usual."""
    file = data.parent / "findings.json"
    result = doctor(data, *words, "--json", file)
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())["findings"]
    return {each["name"]: each for each in found if each["kind"] != "near misses"}


def templates_of(data: Path) -> dict[str, int]:
    """How many templates each identity has."""
    with galleries_of(data) as galleries:
        staff = galleries.get("staff")
        people = galleries.store.identities(staff.record, limit=1_000)
        assert staff.template_count == sum(len(each.templates) for each in people), "index and store agree"
        return {each.external_id: len(each.templates) for each in people}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 people with three templates each, of whom one is enrolled twice, and one has a template of somebody else.

    One template of person_3 is under person_3_again, one of person_5 under person_6. One of person_9 is blurred.
    """
    rng = np.random.default_rng(0)
    data = tmp_path_factory.mktemp("made") / "data"
    with galleries_of(data) as galleries:
        gallery = galleries.create("staff", GalleryPolicy())
        templates = defaultdict[str, list[NewTemplate]](list)
        for number, person in enumerate(unit(rng.standard_normal((40, gallery.model.dimension), np.float32))):
            noise = unit(rng.standard_normal((3, gallery.model.dimension), np.float32))
            for take, vector in enumerate(unit(person + 0.6 * noise)):
                name = {(3, 2): "person_3_again", (5, 2): "person_6"}.get((number, take), f"person_{number}")
                quality = BLURRED if (number, take) == (9, 2) else SHARP
                templates[name].append(NewTemplate(vector, f"{number:032x}{take:032x}", asdict(quality)))
        for name, each in templates.items():
            galleries.store.enrol(gallery, NewEnrolment(IdentityDetails(name), gallery.model.digest, tuple(each)))
    return data


@pytest.fixture
def staff(made: Path, tmp_path: Path) -> Path:
    """A data folder with that gallery, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "data"))


def test_what_is_wrong_is_told_with_what_mending_does_and_nothing_is_changed(staff: Path) -> None:
    """A table for each kind, with names; the error rates as they are and as they would be."""
    before = templates_of(staff)
    result = doctor(staff)
    told = " ".join(result.output.split())
    assert result.exit_code == 0
    assert "Likely one person: 1" in told
    assert "person_3_again │ 1 template │ person_3" in told
    assert "Likely a wrong label: 1" in told
    assert "person_9 │" in told
    assert "too blurred" in told
    assert " → " in told
    assert "nothing was changed" in told
    assert templates_of(staff) == before


def test_the_findings_are_written_for_programs(staff: Path) -> None:
    """Names, kinds, identities, and both error rates after each proposal."""
    found = findings(staff)
    kinds = {each["kind"]: each for each in found.values()}
    assert set(kinds) == {"duplicate", "mislabelled", "poor"}
    assert (kinds["duplicate"]["identity"], kinds["duplicate"]["other_identity"]) == ("person_3", "person_3_again")
    assert (kinds["mislabelled"]["identity"], kinds["mislabelled"]["other_identity"]) == ("person_6", "person_5")
    assert kinds["poor"]["broken_limits"] == ["too_blurred"]
    assert all(set(each["after"]) == {"fpir", "fnir"} and each["outcome"] is None for each in found.values())


def test_everything_is_mended_at_once_where_nobody_is_to_be_asked(staff: Path) -> None:
    """The duplicate is merged, the other two templates are erased; the gallery then is healthy."""
    before = templates_of(staff)
    done = findings(staff, "--apply", "all", "--yes")
    assert sorted(each["outcome"] for each in done.values()) == ["erased", "erased", "merged"]
    after = templates_of(staff)
    assert after.pop("person_3") == before.pop("person_3") + before.pop("person_3_again")
    assert after == before | {"person_6": 3, "person_9": 2}
    assert findings(staff) == {}


def test_each_finding_is_asked_for_and_no_is_the_answer_of_who_says_nothing(staff: Path) -> None:
    """Yes to the merge, nothing but Enter to the erasures."""
    before = templates_of(staff)
    result = doctor(staff, "--apply", "all", answers="y\n\n\n")
    assert result.exit_code == 0
    assert "move the 1 template of person_3_again to person_3?" in " ".join(result.output.split())
    assert "FPIR" in result.output.splitlines()[-1]
    assert "person_3_again" not in templates_of(staff)
    assert sum(templates_of(staff).values()) == sum(before.values())


def test_a_finding_is_named_by_what_does_not_come_to_mean_something_else(staff: Path) -> None:
    """After the others are mended the name still means the same, and once it is mended it means nothing."""
    (poor,) = (name for name, each in findings(staff).items() if each["kind"] == "poor")
    doctor(staff, "--apply", "duplicate", "--apply", "mislabelled", "--yes")
    assert set(findings(staff)) == {poor}
    assert doctor(staff, "--apply", poor, "--yes").exit_code == 0
    assert templates_of(staff)["person_9"] == 2
    again = doctor(staff, "--apply", poor, "--yes")
    assert again.exit_code == 1
    assert "is no finding of this gallery" in again.stderr


def test_where_nobody_can_answer_nothing_is_done_and_the_way_is_told(staff: Path) -> None:
    """A script without --yes."""
    before = templates_of(staff)
    result = doctor(staff, "--apply", "all")
    assert result.exit_code == 1
    assert "--yes mends without asking" in result.stderr
    assert templates_of(staff) == before


def test_nobody_is_left_without_a_template(staff: Path) -> None:
    """Two poor ones of two are shown to a person, and saying so for one of them by name is no way round it."""
    with galleries_of(staff) as galleries:
        gallery = galleries.get("staff")
        person = galleries.store.identity(gallery.record, "person_9")
        for template in person.templates[:2]:
            gallery.delete_template(template.id)
    (name,) = (name for name, each in findings(staff).items() if each["kind"] == "poor")
    assert "needs somebody who looks" in doctor(staff, "--apply", name, "--yes").stderr
    doctor(staff, "--apply", "all", "--yes")
    assert templates_of(staff)["person_9"] == 1


def test_people_who_have_expired_are_not_examined(staff: Path) -> None:
    """They are found in no search."""
    with galleries_of(staff) as galleries:
        staff_gallery = galleries.get("staff")
        moment = galleries.store.now().replace(year=2001)
        galleries.store.update_identity(staff_gallery.record, "person_3_again", {"expires_at": moment})
    assert "duplicate" not in {each["kind"] for each in findings(staff).values()}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--gallery", "nobody"), "there is no gallery 'nobody'"),
        (("--json", "nowhere/findings.json"), "there is no folder nowhere to write findings.json into"),
        (("--apply", "d1+2"), "'d1+2' is no finding of this gallery, nor a kind of them"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_exit_code_1(staff: Path, words: tuple[str, ...], problem: str) -> None:
    result = doctor(staff, *words)
    assert result.exit_code == 1
    assert problem in result.stderr
    assert "\n" not in result.stderr.strip()


def test_a_gallery_of_a_few_people_is_told_how_many_it_takes(tmp_path: Path) -> None:
    """What chance gives cannot be seen there."""
    with galleries_of(tmp_path / "data") as galleries:
        galleries.create("staff", GalleryPolicy())
    result = doctor(tmp_path / "data")
    assert result.exit_code == 1
    assert "has 0 people" in result.stderr
    assert "from 20 people on" in result.stderr
