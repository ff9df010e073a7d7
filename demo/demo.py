"""The whole of facedex in one run: a server, people enrolled by another process, and probes with the truth beside the answer.

The sample people are synthetic (tests/data/people/NOTE.md). 30 of the 40 are enrolled from three photographs each; the
other ten are strangers, whom the server should not know. What is asked: two further photographs of everybody, and three
group photographs. Ends with `demo: N of M probes right`; exits with 1 where the server does not start or stop cleanly,
or the enrolment fails.
"""

import csv
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from facedex.client import Box, Client, Decision, Identification, IdentifiedFace
from facedex.client.drawing import label_of, save_labelled

ROOT = Path(__file__).resolve().parents[1]
PEOPLE = ROOT / "tests" / "data" / "people"
PICTURE = ROOT / "build" / "demo" / "group.jpg"
GALLERY = "demo"
ENROLLED_COUNT = 30
ENROLLED_PHOTOGRAPHS = ("1.jpg", "2.jpg", "3.jpg")
PROBE_PHOTOGRAPHS = {"4.jpg": "another expression", "5.jpg": "small, dim, noisy"}
DRAWN_GROUP = "groups/3.jpg"
START_SECONDS, STOP_SECONDS = 60.0, 30.0


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


@dataclass(frozen=True, slots=True)
class TrueFace:
    """A face whose person is known; x and y are the middle of its box in pixels."""

    photograph: str
    person: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Probe:
    """A face that was looked for, and what was answered: None where no face was found in its place."""

    truth: TrueFace
    is_enrolled: bool
    answer: IdentifiedFace | None
    milliseconds: float

    @property
    def is_right(self) -> bool:
        if self.answer is None or not self.is_enrolled:
            return self.answer is not None and self.answer.decision is Decision.NO_MATCH
        return self.answer.decision is Decision.MATCH and self.answer.candidates[0].identity == self.truth.person

    @property
    def text(self) -> Text:
        mark, style = ("✓", "green") if self.is_right else ("✗", "bold red")
        return Text(f"{mark} {_answer_text(self.answer)}", style=style)


def main() -> int:
    console = Console(highlight=False, soft_wrap=True)
    try:
        with tempfile.TemporaryDirectory(prefix="facedex-demo-") as scratch:
            probes = run(console, Path(scratch))
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"demo: {sum(probe.is_right for probe in probes)} of {len(probes)} probes right")
    return 0


def run(console: Console, scratch: Path) -> Sequence[Probe]:
    truth = read_truth()
    people = sorted({face.person for face in truth})
    enrolled = frozenset(people[:ENROLLED_COUNT])
    with running_server(scratch) as address:
        console.print(f"The server listens on {address}; its data are in {scratch}.\n")
        enrol(address, folder=people_folder(scratch, enrolled))
        with Client.connect(address) as client:
            portraits, groups = probe(client, truth, enrolled)
    console.print(portrait_table(portraits))
    console.print(group_table(groups))
    console.print(f"Median time of one photograph: {median(p.milliseconds for p in portraits):.0f} ms.")
    console.print(f"The group with names on it: {PICTURE.relative_to(ROOT)}")
    return [*portraits, *groups]


def read_truth() -> Sequence[TrueFace]:
    with (PEOPLE / "faces.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["person_id"] and row["kind"] != "too_small_blurred"]
    return [_true_face(row) for row in rows]


def _true_face(row: dict[str, str]) -> TrueFace:
    x, y, width, height = (float(row[name]) for name in "xywh")
    return TrueFace(row["image"], row["person_id"], x + width / 2, y + height / 2)


@contextmanager
def running_server(scratch: Path) -> Generator[str]:
    """The address of a server that runs as a process of its own, and is stopped as an operator would: by SIGTERM."""
    log = scratch / "server.log"
    command: list[str | Path] = [
        _program("facedex-server"),
        "serve",
        "--data",
        scratch / "data",
        "--listen",
        "127.0.0.1:0",
    ]
    with log.open("w") as errors:
        # Its own session: Ctrl-C at the terminal reaches the demo alone, which then stops the server in order.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
    try:
        yield _address(process, log)
    finally:
        _stop(process, log)


def _address(process: "subprocess.Popen[str]", log: Path) -> str:
    impatience = threading.Timer(START_SECONDS, process.kill)
    impatience.start()
    line = process.stdout.readline() if process.stdout else ""
    impatience.cancel()
    if not line.startswith("listening on "):
        raise DemoError(f"the server did not start within {START_SECONDS:g} s\n{log.read_text()}")
    return line.removeprefix("listening on ").strip()


def _stop(process: "subprocess.Popen[str]", log: Path) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise DemoError(f"the server did not stop within {STOP_SECONDS:g} s\n{log.read_text()}") from None
    if code != 0:
        raise DemoError(f"the server ended with {code}\n{log.read_text()}")


def people_folder(scratch: Path, people: Iterable[str]) -> Path:
    """A folder as a user would have it: a sub-folder for each person, with the photographs to enrol."""
    folder = scratch / "people"
    for person in people:
        (folder / person).mkdir(parents=True)
        for photograph in ENROLLED_PHOTOGRAPHS:
            shutil.copy(PEOPLE / person / photograph, folder / person)
    return folder


def enrol(address: str, *, folder: Path) -> None:
    """Enrols the folder by the command `facedex`, in another process than the one that asks later."""
    facedex: list[str | Path] = [_program("facedex"), "--server", address]
    for arguments in (["galleries", "create", GALLERY, "--json"], ["enrol", GALLERY, "--folder", folder]):
        output = subprocess.DEVNULL if "--json" in arguments else None
        if subprocess.run([*facedex, *arguments], stdout=output, check=False).returncode:
            raise DemoError(f"`facedex {arguments[0]}` failed")


def _program(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def probe(
    client: Client, truth: Sequence[TrueFace], enrolled: frozenset[str]
) -> tuple[Sequence[Probe], Sequence[Probe]]:
    """Looks for every face that was not enrolled: on the portraits, and on the groups."""
    portraits: list[Probe] = []
    groups: list[Probe] = []
    for photograph in sorted({face.photograph for face in truth}):
        folder, name = photograph.split("/")
        if folder == "groups" or name in PROBE_PHOTOGRAPHS:
            found = identify(client, photograph, [face for face in truth if face.photograph == photograph], enrolled)
            (groups if folder == "groups" else portraits).extend(found)
    return portraits, groups


def identify(client: Client, photograph: str, faces: Sequence[TrueFace], enrolled: frozenset[str]) -> Iterable[Probe]:
    image = (PEOPLE / photograph).read_bytes()
    started = time.perf_counter()
    found = client.identify(GALLERY, image)
    milliseconds = 1000 * (time.perf_counter() - started)
    if photograph == DRAWN_GROUP:
        draw(image, found)
    return [Probe(face, face.person in enrolled, _answer_at(face, found), milliseconds) for face in faces]


def draw(image: bytes, found: Identification) -> None:
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    save_labelled(image, [label for face in found.faces if (label := label_of(face))], PICTURE)


def _answer_at(truth: TrueFace, found: Identification) -> IdentifiedFace | None:
    """What was answered for the face whose box holds the middle of the true one."""
    return next((face for face in found.faces if face.box and _holds(face.box, truth)), None)


def _holds(box: Box, truth: TrueFace) -> bool:
    return box.x <= truth.x <= box.x + box.width and box.y <= truth.y <= box.y + box.height


def portrait_table(probes: Sequence[Probe]) -> Table:
    table = Table("truth", *PROBE_PHOTOGRAPHS.values(), title="Who is it?", caption="✓ right  ✗ wrong")
    table.add_column("ms", justify="right")
    for person in sorted({probe.truth.person for probe in probes}):
        of_person = [probe for probe in probes if probe.truth.person == person]
        milliseconds = " ".join(f"{probe.milliseconds:3.0f}" for probe in of_person)
        table.add_row(_truth_text(of_person[0]), *(probe.text for probe in of_person), milliseconds)
    return table


def group_table(probes: Sequence[Probe]) -> Table:
    table = Table("photograph", "truth", "answer", title="Who is in the group?", caption="✓ right  ✗ wrong")
    table.add_column("ms", justify="right")
    for probe in probes:
        table.add_row(probe.truth.photograph, _truth_text(probe), probe.text, f"{probe.milliseconds:.0f}")
    return table


def _truth_text(probe: Probe) -> Text:
    return Text(probe.truth.person) if probe.is_enrolled else Text(f"a stranger ({probe.truth.person[-3:]})", "dim")


def _answer_text(answer: IdentifiedFace | None) -> str:
    if answer is None:
        return "no face found"
    if answer.decision is Decision.NO_MATCH:
        return "nobody enrolled"
    best = answer.candidates[0]
    return f"{'' if answer.decision is Decision.MATCH else 'perhaps '}{best.identity} {best.score:.2f}"


if __name__ == "__main__":
    sys.exit(main())
