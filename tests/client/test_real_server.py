"""Client, command and demo against the real server, as a user has them."""

import asyncio
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.server.running_server import RunningServer
from tests.waiting import wait_until

from facedex.client import (
    AsyncClient,
    Client,
    Decision,
    Enrolment,
    EnrolOutcome,
    EnrolReason,
    EnrolRequest,
    GalleryExistsError,
    GalleryNotFoundError,
    GuardAction,
    IdentifyRequest,
    IdentityNotFoundError,
    InvalidRequestError,
    InvalidVectorError,
    NoFaceError,
    Refusal,
    SeveralFacesError,
    TemplateNotFoundError,
    UnavailableError,
    UnreadableImageError,
    Vector,
    WrongModelError,
)

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

# As in the README; only the address and the file names are put in.
EXAMPLE = """
from pathlib import Path
from facedex.client import Client

with Client.connect("localhost:50051") as client:
    client.create_gallery("staff")
    client.enrol("staff", "ada", images=[Path("ada.jpg").read_bytes()])
    result = client.identify("staff", Path("visitor.jpg").read_bytes(), limit=5)
    for face in result.faces:
        print(face.box, face.decision, [(c.identity, c.score) for c in face.candidates])
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = RunningServer(tmp_path_factory.mktemp("real") / "data")
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(running: RunningServer, people: Path) -> Iterator[Client]:
    """A client of a server where persons 1 and 2 are enrolled in the gallery "staff"."""
    with Client.connect(running.address, timeout_seconds=60) as client:
        client.create_gallery("staff")
        for person in ("person_001", "person_002"):
            images = [(people / person / f"{number}.jpg").read_bytes() for number in (1, 2)]
            client.enrol("staff", person, images=images)
        yield client


def test_the_ten_lines_of_the_readme_print_who_it_is(running: RunningServer, people: Path, tmp_path: Path) -> None:
    assert EXAMPLE.strip() in (ROOT / "README.md").read_text()
    (tmp_path / "ada.jpg").write_bytes((people / "person_003" / "1.jpg").read_bytes())
    (tmp_path / "visitor.jpg").write_bytes((people / "person_003" / "4.jpg").read_bytes())
    script = EXAMPLE.replace("localhost:50051", running.address).replace('"staff"', '"ten-lines"')

    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Box(x=")
    assert "MATCH [('ada', 0." in done.stdout


@pytest.mark.parametrize(
    ("probe", "decision"), [("person_001/4.jpg", Decision.MATCH), ("person_009/4.jpg", Decision.NO_MATCH)]
)
def test_who_is_enrolled_is_found_and_a_stranger_is_not(
    client: Client, people: Path, probe: str, decision: Decision
) -> None:
    (face,) = client.identify("staff", (people / probe).read_bytes()).faces
    assert face.decision is decision


def test_a_vector_from_one_call_is_a_probe_for_another(client: Client, people: Path) -> None:
    (found,) = client.detect((people / "person_002" / "4.jpg").read_bytes(), return_vectors=True).faces
    assert found.vector is not None

    (face,) = client.identify("staff", found.vector).faces

    assert [candidate.identity for candidate in face.candidates] == ["person_002"]
    assert sum(component**2 for component in found.vector.to_floats()) == pytest.approx(1, abs=1e-3)


def test_each_refusal_of_the_server_has_its_error(client: Client, people: Path) -> None:
    portrait = (people / "person_001" / "1.jpg").read_bytes()
    group = (people / "groups" / "1.jpg").read_bytes()
    nobody = (people / "negatives" / "1.jpg").read_bytes()
    embedder = client.server_info().embedder
    half = Vector.from_floats([0.5] + [0.0] * (embedder.dimension - 1), model_digest=embedder.digest)

    with pytest.raises(GalleryExistsError):
        client.create_gallery("staff")
    with pytest.raises(GalleryNotFoundError):
        client.identify("nowhere", portrait)
    with pytest.raises(IdentityNotFoundError):
        client.get_identity("staff", "nobody")
    with pytest.raises(TemplateNotFoundError):
        client.delete_template("staff", 10**9)
    with pytest.raises(UnreadableImageError):
        client.identify("staff", b"no picture")
    with pytest.raises(UnreadableImageError):
        client.detect(portrait[:1000])
    with pytest.raises(NoFaceError):
        client.verify("staff", "person_001", nobody)
    with pytest.raises(SeveralFacesError):
        client.verify("staff", "person_001", group)
    with pytest.raises(InvalidVectorError):
        client.identify("staff", half)
    with pytest.raises(WrongModelError):
        client.identify("staff", Vector(half.values, "0" * 64))
    with pytest.raises(InvalidRequestError) as raised:
        client.create_gallery("No Capitals")
    assert raised.value.violations[0].field == "name"


def test_a_photograph_that_cannot_be_enrolled_tells_why_and_the_others_are(client: Client, people: Path) -> None:
    photographs = ["person_004/1.jpg", "negatives/1.jpg", "groups/1.jpg", "lowquality/1.jpg"]
    client.create_gallery("mixed")

    enrolment = client.enrol("mixed", "four", images=[(people / name).read_bytes() for name in photographs])

    reasons = [[finding.reason for finding in result.refusals] for result in enrolment.results]
    assert enrolment.results[0].outcome is EnrolOutcome.ENROLLED
    assert reasons[1:3] == [[EnrolReason.NO_FACE], [EnrolReason.SEVERAL_FACES]]
    assert EnrolReason.TOO_SMALL in reasons[3]
    assert len(enrolment.results[2].faces) == 3


def test_the_same_request_again_gets_the_first_answer(client: Client, people: Path) -> None:
    client.create_gallery("twice")
    image = (people / "person_005" / "1.jpg").read_bytes()

    first = client.enrol("twice", "five", images=[image], request_id="one")
    second = client.enrol("twice", "five", images=[image], request_id="one")

    assert first == second
    assert client.get_gallery("twice").template_count == 1


def test_a_stream_enrols_and_tells_of_each_request(client: Client, people: Path) -> None:
    client.create_gallery("stream")
    requests = [
        EnrolRequest("stream", path.parent.name, images=[path.read_bytes()])
        for path in sorted(people.glob("person_00[1-4]/[123].jpg"))
    ]
    requests.insert(5, EnrolRequest("nowhere", "lost", images=[b"x"]))

    answers = list(client.enrol_stream(requests, window=4))

    assert [isinstance(answer, Refusal) for answer in answers] == [number == 5 for number in range(13)]
    assert isinstance(answers[5], Refusal)
    assert isinstance(answers[5].error, GalleryNotFoundError)
    assert client.get_gallery("stream").template_count == 12


def test_identities_are_paged_through_filtered_changed_and_erased(client: Client, people: Path) -> None:
    client.create_gallery("pages")
    image = (people / "person_001" / "1.jpg").read_bytes()
    for number in range(5):
        attributes = {"team": "even" if number % 2 == 0 else "odd"}
        enrolled = client.enrol(
            "pages", f"p{number}", images=[image], attributes=attributes, duplicate_action=GuardAction.ALLOW
        )
        assert not enrolled.refused

    assert [each.id for each in client.list_identities("pages", page_size=2)] == ["p0", "p1", "p2", "p3", "p4"]
    assert [each.id for each in client.list_identities("pages", filters={"team": ["odd"]})] == ["p1", "p3"]
    assert client.update_identity("pages", "p0", display_name="Zero").display_name == "Zero"
    assert client.delete_identity("pages", "p0").template_count == 1
    with pytest.raises(IdentityNotFoundError):
        client.get_identity("pages", "p0")


def test_many_awaited_searches_run_at_the_same_time(running: RunningServer, client: Client, people: Path) -> None:
    assert client
    probe = (people / "person_001" / "4.jpg").read_bytes()

    async def decisions() -> list[Decision]:
        async with AsyncClient.connect(running.address, timeout_seconds=60) as asynchronous:
            found = await asyncio.gather(*(asynchronous.identify("staff", probe) for _ in range(12)))
            frames = [IdentifyRequest("staff", probe)] * 3
            streamed = [answer async for answer in asynchronous.identify_stream(frames)]
        assert not any(isinstance(answer, Refusal) for answer in streamed)
        return [result.faces[0].decision for result in found]

    assert asyncio.run(decisions()) == [Decision.MATCH] * 12


def test_a_cancelled_task_leaves_the_client_usable(running: RunningServer, client: Client, people: Path) -> None:
    assert client
    probe = (people / "groups" / "3.jpg").read_bytes()

    async def cancelled_then_asked() -> int:
        async with AsyncClient.connect(running.address, timeout_seconds=60) as asynchronous:
            task = asyncio.create_task(_identify(asynchronous, probe))
            await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await _identify(asynchronous, probe)

    assert asyncio.run(cancelled_then_asked()) == 6


async def _identify(client: AsyncClient, probe: bytes) -> int:
    return len((await client.identify("staff", probe)).faces)


def test_a_server_that_is_killed_in_the_middle_of_a_stream_is_told_and_keeps_what_it_acknowledged(
    people: Path, tmp_path: Path
) -> None:
    server = RunningServer(tmp_path / "data")
    image = (people / "person_001" / "1.jpg").read_bytes()
    numbers = itertools.count()
    endless = (EnrolRequest("staff", f"p{n}", images=[image], duplicate_action=GuardAction.ALLOW) for n in numbers)
    acknowledged: set[str] = set()

    def enrol_until_killed(client: Client) -> None:
        for answer in client.enrol_stream(endless):
            assert isinstance(answer, Enrolment)
            acknowledged.add(answer.identity)
            if len(acknowledged) == 5:
                server.kill()

    with Client.connect(server.address, timeout_seconds=30) as client:
        client.create_gallery("staff")
        with pytest.raises(UnavailableError, match="no facedex server answers"):
            enrol_until_killed(client)
    server.start()
    with Client.connect(server.address, timeout_seconds=30) as client:
        there = {identity.id for identity in client.list_identities("staff")}
    server.stop()

    assert len(acknowledged) >= 5
    assert acknowledged <= there


def test_the_command_enrols_a_folder_and_identifies(running: RunningServer, people: Path, tmp_path: Path) -> None:
    for person in ("person_006", "person_007"):
        (tmp_path / "people" / person).mkdir(parents=True)
        for name in ("1.jpg", "2.jpg"):
            (tmp_path / "people" / person / name).write_bytes((people / person / name).read_bytes())

    def run(*arguments: object) -> str:
        command = [str(BIN / "facedex"), "--server", running.address, "--timeout", "60", *map(str, arguments)]
        return str(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    run("galleries", "create", "folder")
    assert "4 enrolled: 4 photographs of 2 people" in run("enrol", "folder", "--folder", tmp_path / "people")
    assert "4 already enrolled" in run("enrol", "folder", "--folder", tmp_path / "people")
    group = json.loads(
        run("identify", "folder", people / "groups" / "3.jpg", "--json", "--save", tmp_path / "group.jpg")
    )
    assert [face["decision"] for face in group["faces"]].count("MATCH") == 1
    assert (tmp_path / "group.jpg").stat().st_size > 10_000


def has_connection(process_id: int) -> bool:
    with suppress(FileNotFoundError):  # closed while we looked
        return any(str(file.readlink()).startswith("socket:") for file in Path(f"/proc/{process_id}/fd").iterdir())
    return False


def test_ctrl_c_ends_the_command_with_130_and_no_traceback(
    running: RunningServer, client: Client, people: Path
) -> None:
    assert client
    photographs = [str(people / "groups" / "3.jpg")] * 1000
    process = subprocess.Popen(
        [BIN / "facedex", "--server", running.address, "enrol", "staff", "many", *photographs],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: has_connection(process.pid))
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "")


def test_a_reader_that_has_seen_enough_gets_no_complaint(running: RunningServer, client: Client, people: Path) -> None:
    assert client
    photographs = " ".join(str(people / "person_001" / f"{number}.jpg") for number in (1, 2, 3, 4))
    pipeline = f"{BIN / 'facedex'} --server {running.address} identify staff {photographs} --json | head -1"
    done = subprocess.run(["/bin/sh", "-c", pipeline], capture_output=True, text=True, check=True)
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


def test_the_demo_ends_with_its_score() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "demo" / "demo.py"], capture_output=True, text=True, check=True, timeout=100
    )
    words = done.stdout.splitlines()[-1].split()
    assert (words[0], words[2], words[4:]) == ("demo:", "of", ["probes", "right"])
    assert int(words[1]) >= 0.9 * int(words[3])
    assert "build/demo/group.jpg" in done.stdout
