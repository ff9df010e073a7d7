"""The command `facedex`: what it prints, how it ends."""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from PIL import Image
from tests.client.fake_server import Abort, FakeServer, Refused

from facedex.client.cli import main, program
from facedex.v1 import (
    calibration_pb2,
    consistency_pb2,
    enrolment_pb2,
    face_pb2,
    gallery_pb2,
    identification_pb2,
    operations_pb2,
)

NO_GALLERY = Refused(grpc.StatusCode.NOT_FOUND, "GALLERY_NOT_FOUND", "there is no gallery 'staff'")
NO_IMAGE = Refused(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNREADABLE", "this is no picture")
STAFF = gallery_pb2.Gallery(name="staff", identity_count=1, model_name="starter", model_digest="ab" * 32)


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Facedex = Callable[..., Done]


@pytest.fixture
def facedex(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> Facedex:
    def run(*arguments: object) -> Done:
        with pytest.raises(SystemExit) as ended:
            main(["--server", server.target, "--timeout", "5", *map(str, arguments)])
        printed = capsys.readouterr()
        return Done(int(ended.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "visitor.jpg"
    Image.new("RGB", (320, 240), "white").save(path)
    return path


def a_match(name: str = "Ada") -> identification_pb2.IdentifyResponse:
    box = face_pb2.BoundingBox(x=100, y=60, width=80, height=100)
    ada = identification_pb2.Candidate(identity_id="ada", display_name=name, score=0.71, template_id=1)
    face = identification_pb2.IdentifiedFace(
        face=face_pb2.Face(box=box), decision=identification_pb2.DECISION_MATCH, candidates=[ada]
    )
    stranger = identification_pb2.IdentifiedFace(
        face=face_pb2.Face(box=face_pb2.BoundingBox(x=-5, y=5, width=40, height=40)),
        decision=identification_pb2.DECISION_NO_MATCH,
    )
    point = identification_pb2.OperatingPoint(threshold=0.4, basis="gallery")
    return identification_pb2.IdentifyResponse(faces=[face, stranger], operating_point=point)


def enrolling(outcomes: dict[bytes, enrolment_pb2.EnrolResult]) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """Enrols every photograph but those with these bytes."""

    def exchange(requests: Iterator[Any]) -> Iterator[Any]:
        enrolled = enrolment_pb2.EnrolResult(outcome=enrolment_pb2.ENROL_OUTCOME_ENROLLED, template_id=1)
        for request in requests:
            result = outcomes.get(request.enrol.items[0].image, enrolled)
            reply = enrolment_pb2.EnrolResponse(identity_id=request.enrol.identity.id, results=[result])
            yield enrolment_pb2.EnrolStreamResponse(enrolled=reply)

    return exchange


def test_identify_shows_faces_decisions_and_candidates(facedex: Facedex, server: FakeServer, photograph: Path) -> None:
    server.plan("Identify", a_match())

    done = facedex("identify", "staff", photograph)

    assert done.code == 0
    assert "2 faces, threshold 0.400" in done.out
    row = next(line for line in done.out.splitlines() if "MATCH" in line)
    assert row.split() == ["80×100+100+60", "MATCH", "ada", "Ada", "0.710"]


def test_identify_prints_one_json_object_for_each_photograph(
    facedex: Facedex, server: FakeServer, photograph: Path
) -> None:
    server.plan("Identify", a_match())

    done = facedex("identify", "staff", photograph, photograph, "--json")

    first, second = done.records
    assert first == second
    assert list(first)[:3] == ["photograph", "faces", "operating_point"]
    assert first["faces"][0]["candidates"][0]["identity"] == "ada"
    assert (first["faces"][1]["decision"], first["faces"][1]["candidates"]) == ("NO_MATCH", [])


def test_a_name_is_shown_as_it_is(facedex: Facedex, server: FakeServer, photograph: Path) -> None:
    server.plan("Identify", a_match(name="[red]A\x1b[2Jda"))
    assert "[red]A�[2Jda" in facedex("identify", "staff", photograph).out


def test_identify_passes_its_options_on(facedex: Facedex, server: FakeServer, photograph: Path) -> None:
    server.plan("Identify", a_match())
    options = [
        "--limit",
        3,
        "--threshold",
        0.5,
        "--mode",
        "investigation",
        "--filter",
        "team=it",
        "--filter",
        "team=hr",
    ]

    facedex("identify", "staff", photograph, *options, "--exclude", "bob", "--largest")

    (request,) = server.asked("Identify")
    assert (request.limit, request.threshold) == (3, 0.5)
    assert request.mode == identification_pb2.SEARCH_MODE_INVESTIGATION
    assert request.faces == identification_pb2.FACE_SELECTION_LARGEST
    assert [(each.key, list(each.values)) for each in request.filters] == [("team", ["it", "hr"])]
    assert list(request.excluded_identity_ids) == ["bob"]


def test_saving_draws_a_box_where_the_face_is(
    facedex: Facedex, server: FakeServer, photograph: Path, tmp_path: Path
) -> None:
    server.plan("Identify", a_match())

    assert facedex("identify", "staff", photograph, "--save", tmp_path / "out.png").code == 0

    drawn = Image.open(tmp_path / "out.png")
    assert drawn.size == (320, 240)
    assert drawn.getpixel((100, 110)) == (26, 152, 80)
    assert drawn.getpixel((250, 200)) == (255, 255, 255)


def test_a_photograph_that_lies_on_its_side_is_drawn_upright(
    facedex: Facedex, server: FakeServer, tmp_path: Path
) -> None:
    sideways = Image.new("RGB", (240, 320), "white")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    sideways.save(tmp_path / "sideways.jpg", exif=exif)
    server.plan("Identify", a_match())

    facedex("identify", "staff", tmp_path / "sideways.jpg", "--save", tmp_path / "out.png")

    assert Image.open(tmp_path / "out.png").size == (320, 240)


def test_several_drawn_photographs_go_into_a_folder(
    facedex: Facedex, server: FakeServer, photograph: Path, tmp_path: Path
) -> None:
    other = photograph.with_name("other.jpg")
    other.write_bytes(photograph.read_bytes())
    server.plan("Identify", a_match())

    facedex("identify", "staff", photograph, other, "--save", tmp_path / "drawn")

    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["other.jpg", "visitor.jpg"]


@pytest.mark.parametrize("command", [["identify", "staff"], ["detect"]])
@pytest.mark.parametrize("save", [".", "visitor.jpg", "../photographs"])
def test_a_drawing_never_replaces_a_photograph(
    facedex: Facedex, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], save: str
) -> None:
    (tmp_path / "photographs").mkdir()
    monkeypatch.chdir(tmp_path / "photographs")
    Image.new("RGB", (320, 240), "white").save("visitor.jpg")
    before = Path("visitor.jpg").read_bytes()
    done = facedex(*command, "visitor.jpg", "--save", save)
    assert (done.code, "would replace" in done.err) == (2, True)
    assert Path("visitor.jpg").read_bytes() == before
    assert not server.received


def test_drawings_of_photographs_of_one_name_do_not_replace_each_other(
    facedex: Facedex, server: FakeServer, photograph: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / photograph.name
    other.write_bytes(photograph.read_bytes())
    done = facedex("identify", "staff", photograph, other, "--save", tmp_path / "drawn")
    assert (done.code, "one name" in done.err) == (2, True)
    assert not server.received


@pytest.mark.parametrize("name", ["out.psd", "out.nothing"])
def test_a_drawing_in_a_format_that_is_not_written_is_one_line(
    facedex: Facedex, server: FakeServer, photograph: Path, tmp_path: Path, name: str
) -> None:
    server.plan("Identify", a_match())
    done = facedex("identify", "staff", photograph, "--save", tmp_path / name)
    assert (done.code, "name it .jpg or .png" in done.err) == (1, True)


def test_after_a_photograph_that_cannot_be_examined_come_the_others(
    facedex: Facedex, server: FakeServer, photograph: Path, tmp_path: Path
) -> None:
    server.plan("Identify", NO_IMAGE, a_match())

    done = facedex("identify", "staff", photograph, tmp_path / "missing.jpg", photograph)

    assert done.code == 1
    assert done.err.splitlines() == [
        f"facedex: {photograph}: this is no picture",
        f"facedex: {tmp_path / 'missing.jpg'}: No such file or directory",
    ]
    assert "2 faces" in done.out


def test_an_unknown_gallery_is_one_line_and_ends_the_command(
    facedex: Facedex, server: FakeServer, photograph: Path
) -> None:
    server.plan("Identify", NO_GALLERY)

    done = facedex("identify", "staff", photograph, photograph)

    assert (done.code, done.out, done.err) == (1, "", "facedex: there is no gallery 'staff'\n")


def test_a_server_that_is_down_is_one_line(facedex: Facedex, server: FakeServer) -> None:
    server.stop()
    done = facedex("--timeout", "0.5", "info")
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert f"no facedex server answers at {server.target}" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["identify"],
        ["identify", "staff", "x.jpg", "--limit", "0"],
        ["identify", "staff", "x.jpg", "--filter", "team"],
        ["enrol", "staff", "ada"],
        ["enrol", "staff", "ada", "x.jpg", "--folder", "."],
        ["galleries", "create", "staff", "--quality-limit", "beauty=1"],
        ["galleries", "create", "staff", "--quality-limit", "min_size_px=big"],
        ["identities", "update", "staff", "ada", "--expires", "tomorrow"],
        ["nonsense"],
    ],
)
def test_wrong_usage_ends_with_2_and_asks_no_server(facedex: Facedex, server: FakeServer, arguments: list[str]) -> None:
    done = facedex(*arguments)
    assert done.code == 2
    assert "Usage" in done.err
    assert not server.received


@pytest.mark.parametrize(
    "words",
    [
        ["identify", "staff", "{photograph}", "--json", "--server", "{target}", "--timeout", "5"],
        ["identify", "--timeout=5", "staff", "--server={target}", "--json", "--", "{photograph}"],
        ["--timeout", "5", "identify", "--server", "{target}", "staff", "{photograph}", "--json"],
    ],
)
def test_options_of_the_program_may_stand_behind_a_command(
    words: list[str], server: FakeServer, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.plan("Identify", a_match())
    with pytest.raises(SystemExit) as ended:
        main([word.format(target=server.target, photograph=photograph) for word in words])
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out)["faces"]


def test_a_value_that_is_missing_is_not_taken_from_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["info", "--server"])
    assert ended.value.code == 2
    assert "'--server' requires an argument" in capsys.readouterr().err


def test_what_follows_two_dashes_is_no_option_of_the_program(facedex: Facedex, server: FakeServer) -> None:
    done = facedex("identify", "staff", "--", "--tls")
    assert "--tls" in done.err
    assert "no such file" in done.err.lower()
    assert not server.received


def test_no_command_has_an_option_of_the_programs_name() -> None:
    """`program_options_first` would take it for the program's."""
    command = typer.main.get_command(program)
    ours = {name for option in command.params for name in option.opts} - {"--help"}
    assert "--server" in ours
    assert not [(path, names) for path, each in below(command) if (names := ours & option_names(each))]


def below(group: object, *above: str) -> Iterator[tuple[str, object]]:
    for name, command in getattr(group, "commands", {}).items():
        yield " ".join((*above, name)), command
        yield from below(command, *above, name)


def option_names(command: object) -> set[str]:
    return {name for option in getattr(command, "params", ()) for name in option.opts}


@pytest.mark.parametrize(("decision", "code"), [("DECISION_MATCH", 0), ("DECISION_NO_MATCH", 3)])
def test_verify_ends_with_the_answer(
    facedex: Facedex, server: FakeServer, photograph: Path, decision: str, code: int
) -> None:
    number = identification_pb2.Decision.Value(decision)
    server.plan("Verify", identification_pb2.VerifyResponse(decision=number, score=0.3))

    assert facedex("verify", "staff", "ada", photograph).code == code
    done = facedex("compare", photograph, photograph, "--json")
    assert (done.code, done.records[0]["decision"]) == (code, decision.removeprefix("DECISION_"))


def test_detect_measures_each_face(facedex: Facedex, server: FakeServer, photograph: Path) -> None:
    quality = face_pb2.Quality(detector_score=0.9, size_px=80, sharpness=120, brightness=99, yaw_degrees=-12)
    box = face_pb2.BoundingBox(x=1, y=2, width=80, height=100)
    vector = face_pb2.Vector(values=b"\x00\x00\x80\x3f", model_digest="ab")
    face = identification_pb2.DetectedFace(face=face_pb2.Face(box=box, quality=quality), vector=vector)
    server.plan("Detect", identification_pb2.DetectResponse(faces=[face], image_width=320, image_height=240))

    done = facedex("detect", photograph)
    assert "1 face, 320×240 px" in done.out
    assert "80×100+1+2 0.90 80 120 99 -12 +0 +0" in " ".join(done.out.split())
    (record,) = facedex("detect", photograph, "--vectors", "--json").records
    assert record["faces"][0]["vector"] == {"values": [1.0], "model_digest": "ab"}
    assert record["faces"][0]["face"]["quality"]["detector_score"] == 0.9


def test_a_folder_of_people_is_enrolled_and_refusals_are_reported(
    facedex: Facedex, server: FakeServer, tmp_path: Path
) -> None:
    for name, content in {"ada/1.jpg": b"a1", "ada/2.PNG": b"a2", "bob/1.jpeg": b"b1", "bob/.hidden.jpg": b"x"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "ada" / "notes.txt").write_text("no photograph")
    finding = enrolment_pb2.EnrolFinding(reason=enrolment_pb2.ENROL_REASON_TOO_SMALL, message="the face is small")
    refused = enrolment_pb2.EnrolResult(outcome=enrolment_pb2.ENROL_OUTCOME_REFUSED, refusals=[finding])
    server.plan("GetGallery", gallery_pb2.GetGalleryResponse(gallery=STAFF))
    server.plan_stream("EnrolStream", enrolling({b"a2": refused}))

    done = facedex("enrol", "staff", "--folder", tmp_path)
    assert done.code == 3
    assert "the face is small" in done.out
    assert "2 enrolled, 1 refused: 3 photographs of 2 people in" in done.out
    records = facedex("enrol", "staff", "--folder", tmp_path, "--json").records
    assert [(record["identity"], record["outcome"]) for record in records] == [
        ("ada", "ENROLLED"),
        ("ada", "REFUSED"),
        ("bob", "ENROLLED"),
    ]
    assert records[1]["refusals"][0]["reason"] == "TOO_SMALL"


def test_a_file_that_cannot_be_read_is_reported_in_its_place(
    facedex: Facedex, server: FakeServer, photograph: Path, tmp_path: Path
) -> None:
    server.plan("GetGallery", gallery_pb2.GetGalleryResponse(gallery=STAFF))
    server.plan_stream("EnrolStream", enrolling({}))
    files = [tmp_path / "gone.jpg", photograph, tmp_path / "lost.jpg"]

    records = facedex("enrol", "staff", "ada", *files, "--json").records

    assert [record["photograph"] for record in records] == [str(path) for path in files]
    assert [record["outcome"] for record in records] == ["REFUSED", "ENROLLED", "REFUSED"]
    assert records[0]["refusals"][0]["reason"] == "FILE_UNREADABLE"


def test_what_was_enrolled_before_the_stream_broke_is_reported(
    facedex: Facedex, server: FakeServer, photograph: Path
) -> None:
    def breaking(requests: Iterator[Any]) -> Iterator[Any]:
        yield from itertools.islice(enrolling({})(requests), 2)
        raise Abort(Refused(grpc.StatusCode.UNAVAILABLE, "STOPPING", "the server stops"))

    server.plan("GetGallery", gallery_pb2.GetGalleryResponse(gallery=STAFF))
    server.plan_stream("EnrolStream", breaking)

    done = facedex("enrol", "staff", "ada", *[photograph] * 30)
    assert (done.code, done.err) == (1, "facedex: the server stops\n")
    assert "2 enrolled: 2 photographs of 1 person" in done.out
    assert len(facedex("enrol", "staff", "ada", *[photograph] * 30, "--json").records) == 2


def test_the_person_that_a_guard_means_is_named(facedex: Facedex, server: FakeServer, photograph: Path) -> None:
    finding = enrolment_pb2.EnrolFinding(
        reason=enrolment_pb2.ENROL_REASON_DUPLICATE_PERSON, message="seems enrolled", other_identity_id="bob"
    )
    result = enrolment_pb2.EnrolResult(outcome=enrolment_pb2.ENROL_OUTCOME_ENROLLED, template_id=1, warnings=[finding])
    server.plan("GetGallery", gallery_pb2.GetGalleryResponse(gallery=STAFF))
    server.plan_stream("EnrolStream", enrolling({photograph.read_bytes(): result}))

    done = facedex("enrol", "staff", "ada", photograph)
    assert (done.code, "looks like bob: seems enrolled" in " ".join(done.out.split())) == (0, True)


def test_a_person_without_a_photograph_is_named(facedex: Facedex, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "people" / "ada").mkdir(parents=True)
    (tmp_path / "people" / "ada" / "1.jpg").write_bytes(b"a photograph")
    (tmp_path / "people" / "nobody").mkdir()
    (tmp_path / "people" / "nobody" / "notes.txt").write_text("no photograph")
    server.plan("GetGallery", gallery_pb2.GetGalleryResponse(gallery=STAFF))
    server.plan_stream("EnrolStream", enrolling({}))
    done = facedex("enrol", "staff", "--folder", tmp_path / "people")
    assert done.code == 0
    assert f"there is no photograph in {tmp_path / 'people' / 'nobody'}" in done.err
    assert "people/ada\n" not in done.err


def test_a_folder_without_people_is_said(facedex: Facedex, tmp_path: Path) -> None:
    done = facedex("enrol", "staff", "--folder", tmp_path)
    assert (done.code, "needs a folder for each person" in done.err) == (1, True)


def test_a_gallery_keeps_the_rules_that_an_update_does_not_name(facedex: Facedex, server: FakeServer) -> None:
    now = gallery_pb2.Gallery(name="staff", decision_policy=gallery_pb2.DecisionPolicy(cosine=0.4, review_cosine=0.3))
    server.plan("GetGallery", gallery_pb2.GetGalleryResponse(gallery=now))
    server.plan("UpdateGallery", gallery_pb2.UpdateGalleryResponse(gallery=now))

    assert facedex("galleries", "update", "staff", "--threshold", "0.5", "--retention-days", "0").code == 0

    (request,) = server.asked("UpdateGallery")
    assert list(request.update_mask.paths) == ["decision_policy", "retention"]
    assert (request.gallery.decision_policy.cosine, request.gallery.decision_policy.review_cosine) == (0.5, 0.3)


def test_galleries_are_created_listed_and_shown(facedex: Facedex, server: FakeServer) -> None:
    server.plan("CreateGallery", gallery_pb2.CreateGalleryResponse(gallery=STAFF))
    server.plan("GetGallery", gallery_pb2.GetGalleryResponse(gallery=STAFF))
    server.plan("ListGalleries", gallery_pb2.ListGalleriesResponse(galleries=[STAFF]))

    created = facedex("galleries", "create", "staff", "--duplicates", "refuse", "--quality-limit", "min_size_px=64")
    assert "abababababab…" in created.out
    assert "staff" in facedex("galleries", "list").out
    assert facedex("galleries", "list", "--json").records == facedex("galleries", "show", "staff", "--json").records
    (request,) = server.asked("CreateGallery")
    assert request.gallery.enrolment_policy.duplicate_action == gallery_pb2.GUARD_ACTION_REFUSE
    assert request.gallery.enrolment_policy.quality_limits.min_size_px == 64


def test_nothing_is_erased_unasked(facedex: Facedex, server: FakeServer) -> None:
    server.plan("GetGallery", gallery_pb2.GetGalleryResponse(gallery=STAFF))
    server.plan("DeleteGallery", gallery_pb2.DeleteGalleryResponse(deleted_identity_count=1))

    done = facedex("galleries", "delete", "staff")
    assert (done.code, done.err) == (
        1,
        "facedex: gallery staff with 1 person would be erased for ever; add --yes to do it\n",
    )
    assert not server.asked("DeleteGallery")
    assert facedex("galleries", "delete", "staff", "--yes").out == "erased gallery staff with 1 person\n"


def test_people_are_listed_shown_changed_and_erased(facedex: Facedex, server: FakeServer) -> None:
    ada = enrolment_pb2.Identity(
        id="ada", display_name="Ada", attributes={"team": "it"}, templates=[enrolment_pb2.Template(id=7)]
    )
    server.plan("ListIdentities", enrolment_pb2.ListIdentitiesResponse(identities=[ada]))
    server.plan("GetIdentity", enrolment_pb2.GetIdentityResponse(identity=ada))
    server.plan("UpdateIdentity", enrolment_pb2.UpdateIdentityResponse(identity=ada))
    server.plan("DeleteIdentity", enrolment_pb2.DeleteIdentityResponse(deleted_template_count=1))
    server.plan("DeleteTemplate", enrolment_pb2.DeleteTemplateResponse())

    assert "team=it" in facedex("identities", "list", "staff").out
    assert facedex("identities", "list", "staff", "--json").records[0]["templates"][0]["id"] == 7
    assert "never" in facedex("identities", "show", "staff", "ada").out
    assert facedex("identities", "update", "staff", "ada", "--expires", "2030-12-31", "--name", "Ada L.").code == 0
    assert facedex("identities", "delete-template", "staff", "7", "--yes").out == "erased template 7\n"
    assert facedex("identities", "delete", "staff", "ada", "--yes").out == "erased ada with 1 template\n"
    (erased,) = facedex("identities", "delete", "staff", "ada", "--yes", "--json").records
    assert erased == {"identity": "ada", "template_count": 1, "revision": 0, "receipt": ""}
    (update,) = server.asked("UpdateIdentity")
    assert list(update.update_mask.paths) == ["display_name", "expire_time"]
    assert update.identity.expire_time.ToDatetime().isoformat() == "2030-12-31T00:00:00"


@pytest.mark.parametrize(
    "command",
    [
        ["identities", "delete", "staff", "ada"],
        ["identities", "delete-template", "staff", "7"],
        ["galleries", "delete", "staff"],
    ],
)
@pytest.mark.parametrize("place", ["nowhere/receipt.json", "."])
def test_nothing_is_erased_whose_receipt_has_no_place(
    facedex: Facedex, server: FakeServer, tmp_path: Path, command: list[str], place: str
) -> None:
    server.plan("GetIdentity", enrolment_pb2.GetIdentityResponse(identity=enrolment_pb2.Identity(id="ada")))
    server.plan("GetGallery", gallery_pb2.GetGalleryResponse(gallery=STAFF))
    done = facedex(*command, "--yes", "--receipt", tmp_path / place)
    assert (done.code, "nothing was erased" in done.err) == (1, True)
    assert not [each for each in ("DeleteIdentity", "DeleteTemplate", "DeleteGallery") if server.asked(each)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["identities", "show", "staff", "J\udcf6rg"],
        ["identities", "delete-template", "staff", "1" + "0" * 30, "--yes"],
        ["galleries", "create", "staff", "--retention-days", "1e12"],
    ],
)
def test_a_value_that_no_message_can_carry_is_one_line(
    facedex: Facedex, server: FakeServer, arguments: list[str]
) -> None:
    done = facedex(*arguments)
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith("facedex: a value cannot be used")
    assert not server.received


@pytest.mark.parametrize("option", [(), ("--public-key", "photograph.jpg")])
def test_a_photograph_is_no_receipt(
    facedex: Facedex, tmp_path: Path, option: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), "white").save("photograph.jpg")
    done = facedex("verify-erasure", "photograph.jpg", "--offline", *option)
    assert (done.code, len(done.err.splitlines())) == (1, 1)


def test_info_tells_models_and_limits(facedex: Facedex, server: FakeServer) -> None:
    embedder = operations_pb2.ModelInfo(name="starter", default_threshold=0.4, threshold_basis="lfw", dimension=128)
    reply = operations_pb2.GetServerInfoResponse(
        version="0.1.0", embedder=embedder, max_image_bytes=20 * 2**20, devices="cpu: as asked for"
    )
    server.plan("GetServerInfo", reply)

    told = facedex("info").out
    assert "0.4 (lfw)" in told
    assert "cpu: as asked for" in told
    assert facedex("info", "--json").records[0]["embedder"]["dimension"] == 128


def test_info_tells_how_galleries_are_searched_and_what_they_promise(facedex: Facedex, server: FakeServer) -> None:
    index = operations_pb2.IndexInfo(gallery="staff", template_count=20_000, reason="1 bit a component: tried")
    point = identification_pb2.OperatingPoint(threshold=0.52, fpir=identification_pb2.FpirBound(upper=0.0098))
    promise = operations_pb2.PromiseInfo(gallery="staff", operating_point=point, drift="strangers score higher")
    server.plan(
        "GetServerInfo",
        operations_pb2.GetServerInfoResponse(
            loaded_share=1, indexes=[index], promises=[promise], index_checked_total=12, index_missed_total=1
        ),
    )

    told = " ".join(facedex("info").out.split())

    assert "20000 templates; 1 bit a component: tried" in told
    assert "FPIR at most 0.98% at threshold 0.520; strangers score higher" in told
    assert "12 searches done again exactly, 1 identities missed" in told


def test_calibrate_waits_for_its_job_and_says_what_came_of_it(facedex: Facedex, server: FakeServer) -> None:
    running = operations_pb2.Job(id=7, kind="calibrate", gallery="staff", state=operations_pb2.JOB_STATE_RUNNING)
    done = operations_pb2.Job(id=7, kind="calibrate", gallery="staff", state=operations_pb2.JOB_STATE_DONE, progress=1)
    server.plan("Calibrate", calibration_pb2.CalibrateResponse(job=running))
    server.plan("GetJob", operations_pb2.GetJobResponse(job=done))

    ended = facedex("calibrate", "staff")

    assert (ended.code, ended.out.startswith("calibrated staff")) == (0, True)


def test_a_calibration_that_fails_ends_with_1_and_the_reason(facedex: Facedex, server: FakeServer) -> None:
    failed = operations_pb2.Job(
        id=7,
        kind="calibrate",
        gallery="staff",
        state=operations_pb2.JOB_STATE_FAILED,
        error="enrol at least two people",
    )
    server.plan("Calibrate", calibration_pb2.CalibrateResponse(job=failed))

    ended = facedex("calibrate", "staff")

    assert (ended.code, "enrol at least two people" in ended.out) == (1, True)


def test_threshold_tells_the_bound_and_how_it_was_come_by(facedex: Facedex, server: FakeServer) -> None:
    bound = identification_pb2.FpirBound(lower=0.002, estimate=0.005, upper=0.0099, is_measured=True)
    point = identification_pb2.OperatingPoint(threshold=0.512, basis="a certificate", fpir=bound)
    reply = calibration_pb2.ResolveThresholdResponse(
        operating_point=point, fnir_lower=0.01, fnir_estimate=0.02, fnir_upper=0.04
    )
    server.plan("ResolveThreshold", reply)

    told = " ".join(facedex("threshold", "staff", "--target-fpir", "0.01").out.split())

    assert "threshold 0.512" in told
    assert "FPIR 0.200% to 0.990% (95 %, measured), most likely 0.500%" in told
    assert "FNIR 1.00% to 4.00% (95 %), measured 2.00%" in told
    (asked,) = server.asked("ResolveThreshold")
    assert (asked.gallery, asked.target_fpir) == ("staff", 0.01)


def test_jobs_are_listed_shown_and_cancelled(facedex: Facedex, server: FakeServer) -> None:
    job = operations_pb2.Job(
        id=7,
        kind="enrol",
        gallery="staff",
        state=operations_pb2.JOB_STATE_RUNNING,
        progress=0.4,
        result='{"enrolled": 3, "refused": 1}',
        owner="desk:1234",
        is_abandoned=True,
        item_count=10,
        done_count=4,
    )
    server.plan("ListJobs", operations_pb2.ListJobsResponse(jobs=[job]))
    server.plan("GetJob", operations_pb2.GetJobResponse(job=job))
    server.plan("CancelJob", operations_pb2.CancelJobResponse(job=job))

    assert "RUNNING" in facedex("jobs", "list").out
    assert facedex("jobs", "list", "--json").records[0]["progress"] == 0.4
    told = " ".join(facedex("jobs", "show", "7").out.split())
    assert "RUNNING, abandoned" in told
    assert "40% (4 of 10)" in told
    assert "by desk:1234" in told
    assert "enrolled: 3, refused: 1" in told
    assert facedex("jobs", "cancel", "7").code == 0
    assert [each.id for each in server.asked("CancelJob")] == [7]


def test_what_a_job_refused_is_listed_page_by_page(facedex: Facedex, server: FakeServer) -> None:
    found = [
        operations_pb2.JobFinding(position=3 * number, is_refusal=number == 0, reason="no_face", message="come closer")
        for number in range(2)
    ]
    first = operations_pb2.ListJobFindingsResponse(findings=found[:1], next_page_token="3")  # noqa: S106
    server.plan("ListJobFindings", first, operations_pb2.ListJobFindingsResponse(findings=found[1:]))
    records = facedex("jobs", "findings", "7", "--json").records
    assert [(each["position"], each["is_refusal"]) for each in records] == [(0, True), (3, False)]
    server.plan("ListJobFindings", operations_pb2.ListJobFindingsResponse(findings=found))
    told = facedex("jobs", "findings", "7").out
    assert "refused" in told
    assert "look at it" in told


def test_a_target_takes_the_place_of_a_fixed_threshold(facedex: Facedex, server: FakeServer) -> None:
    fixed = gallery_pb2.Gallery(name="staff", decision_policy=gallery_pb2.DecisionPolicy(cosine=0.5))
    server.plan("GetGallery", gallery_pb2.GetGalleryResponse(gallery=fixed))
    server.plan("UpdateGallery", gallery_pb2.UpdateGalleryResponse(gallery=fixed))

    assert facedex("galleries", "update", "staff", "--target-fpir", "0.01").code == 0
    (asked,) = server.asked("UpdateGallery")
    assert asked.gallery.decision_policy.WhichOneof("threshold") == "target_fpir"
    assert facedex("galleries", "update", "staff", "--target-fpir", "0.01", "--threshold", "0.5").code == 2


def test_every_command_has_help(facedex: Facedex) -> None:
    groups = ("identities", "galleries", "jobs")
    for command in ("enrol", "identify", "verify", "compare", "detect", "calibrate", "threshold", "info", *groups):
        done = facedex(command, "--help")
        assert (done.code, "Usage: " in done.out) == (0, True), command


def test_examples_and_exit_codes_stand_in_the_help_line_by_line(facedex: Facedex) -> None:
    lines = [line.strip() for line in facedex("--help").out.splitlines()]
    assert "facedex enrol staff ada ada.jpg" in lines
    assert "130  ended with Ctrl-C" in lines
    examples = [line.strip() for line in facedex("enrol", "--help").out.splitlines()]
    assert 'facedex enrol staff ada ada-1.jpg ada-2.jpg --name "Ada Lovelace"' in examples


def report(*faults: str) -> consistency_pb2.CheckConsistencyResponse:
    findings = [consistency_pb2.ConsistencyFinding(fault=each, template_id=4, remedy="rebuild") for each in faults]
    counts = [consistency_pb2.FaultCount(fault=each, count=3) for each in faults]
    return consistency_pb2.CheckConsistencyResponse(gallery="staff", revision=7, findings=findings, counts=counts)


def test_a_gallery_that_agrees_ends_with_0(facedex: Facedex, server: FakeServer) -> None:
    server.plan("CheckConsistency", report())
    done = facedex("check", "staff")
    assert (done.code, done.out) == (0, "staff: 0 templates at revision 7, 0.0 s: store and index agree\n")


def test_a_difference_is_shown_and_ends_with_3(facedex: Facedex, server: FakeServer) -> None:
    server.plan("CheckConsistency", report("index-missing"))
    done = facedex("check", "staff")
    assert done.code == 3
    assert "3 differences" in done.out
    assert "index-missing" in done.out
    (record,) = facedex("check", "staff", "--json").records
    assert record["counts"] == {"index-missing": 3}
    assert record["findings"][0]["template_id"] == 4


def test_without_a_name_every_gallery_is_checked(facedex: Facedex, server: FakeServer) -> None:
    other = gallery_pb2.Gallery(name="visitors")
    server.plan("ListGalleries", gallery_pb2.ListGalleriesResponse(galleries=[STAFF, other]))
    server.plan("CheckConsistency", report(), report("row-altered"))
    assert facedex("check").code == 3
    assert [each.gallery for each in server.asked("CheckConsistency")] == ["staff", "visitors"]
