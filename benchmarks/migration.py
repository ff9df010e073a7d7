"""A gallery changes its model while clients ask who is on their photographs.

`python -m benchmarks.migration --people FOLDER --models FOLDER --json FILE`, a folder of photographs a person and the ONNX
files with their manifests. For each share of people who have a vector of the new model it gives FNIR at the threshold that
strangers reach once in a hundred searches, counts failed calls, and compares the answers after roll-back with those before.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from benchmarks.machine import describe_machine
from benchmarks.report import Bar, Side, bars_as_json, print_bars, print_table, write_json
from benchmarks.server_process import ServerProcess

from facedex.client import Client, FacedexError, FaceSelection, SearchMode

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
TARGET_FPIR = 0.01
STRANGERS_SHARE = 0.3
GALLERY = "people"
SEED = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """Whose photographs are enrolled and who is asked for; one photograph of each is enrolled."""

    enrolled: dict[str, Path]
    mated: list[tuple[str, Path]]
    strangers: list[Path]

    @classmethod
    def of(cls, folder: Path) -> Plan:
        people = {each.name: sorted(each.glob("*.jpg")) for each in sorted(folder.iterdir()) if each.is_dir()}
        alone = [name for name, photographs in people.items() if len(photographs) == 1]
        strangers = set(np.random.default_rng(SEED).choice(alone, round(STRANGERS_SHARE * len(people)), replace=False))
        known = {name: photographs for name, photographs in people.items() if name not in strangers}
        return cls(
            enrolled={name: photographs[0] for name, photographs in known.items()},
            mated=[(name, each) for name, photographs in known.items() for each in photographs[1:]],
            strangers=[people[name][0] for name in sorted(strangers)],
        )


@dataclass(frozen=True, slots=True)
class Rates:
    """At one share of people with a vector of the new model; `fnir` at the threshold of `TARGET_FPIR`, rank 1."""

    share: float
    in_force: str
    fnir: float
    threshold: float
    seconds: float


class Traffic:
    """Clients that ask all the while; each failed call is kept."""

    def __init__(self, address: str, probes: Sequence[bytes]) -> None:
        self._address, self._probes = address, probes
        self.calls = 0
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        with Client.connect(self._address, timeout_seconds=60) as client:
            while not self._stopping.is_set():
                try:
                    client.identify(GALLERY, self._probes[self.calls % len(self._probes)])
                except FacedexError as error:
                    self.failures.append(repr(error))
                self.calls += 1

    @contextmanager
    def going_on(self) -> Generator[None]:
        self._thread.start()
        yield
        self._stopping.set()
        self._thread.join()


def main(
    *,
    people: Annotated[Path, typer.Option(help="A folder of photographs a person.")],
    models: Annotated[Path, typer.Option(help="ONNX files, each with its manifest.")],
    old: Annotated[str, typer.Option(help="The model that the gallery begins with.")] = "mobileface_v2",
    new: Annotated[str, typer.Option(help="The model to which it changes.")] = "face-reidentification-retail-0095",
    detector: Annotated[str, typer.Option(help="Finds faces.")] = "face_detection_yunet_2023mar",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Changes a gallery's model step by step, forth, back and forth again."""
    plan = Plan.of(people)
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder), detector=detector, embedder=old)
        for name in (old, new, detector):
            site.index("models", "add", models / f"{name}.onnx", "--manifest", models / f"{name}.toml")
        site.enrol(plan)
        with ServerProcess(site.data, *site.models) as server:
            report = _migrated(site, server.address, plan, new)
    bars = _bars(report)
    _print(report)
    print_bars(bars)
    write_json(json_file, {"machine": describe_machine(), **report, "bars": bars_as_json(bars)})


class Site:
    """A data folder, and the command that tends it."""

    def __init__(self, folder: Path, *, detector: str, embedder: str) -> None:
        self.folder, self.data = folder, folder / "data"
        self.data.mkdir()
        self.models = ("--detector", detector, "--embedder", embedder)

    def index(self, *arguments: object) -> str:
        program = Path(sys.executable).with_name("facedex-index")
        command = [str(program), "--data", str(self.data), *self.models, *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603

    def enrol(self, plan: Plan) -> None:
        source = self._folder_of("people", plan.enrolled)
        self.index("enrol", source, "--gallery", GALLERY, "--json")

    def originals(self, plan: Plan, share: float) -> Path:
        names = sorted(plan.enrolled)
        np.random.default_rng(SEED).shuffle(names)
        chosen = names[: round(share * len(names))]
        return self._folder_of(f"originals-{share}", {name: plan.enrolled[name] for name in chosen})

    def _folder_of(self, name: str, photographs: dict[str, Path]) -> Path:
        folder = self.folder / name
        folder.mkdir()
        for person, photograph in photographs.items():
            (folder / person).mkdir()
            (folder / person / photograph.name).symlink_to(photograph.resolve())
        return folder


def _migrated(site: Site, address: str, plan: Plan, new: str) -> dict[str, Any]:
    probes = [path.read_bytes() for _, path in plan.mated[:50]]
    traffic = Traffic(address, probes)
    rates: list[Rates] = []
    after: list[Any] = []
    with traffic.going_on(), Client.connect(address, timeout_seconds=60) as client:
        before = _answers(client, plan)
        digest = client.identify(GALLERY, probes[0]).model_digest
        rates.append(_rates(client, plan, 0.0))
        for share in SHARES[1:]:
            site.index("migrate", "begin", GALLERY, "--model", new, "--originals", site.originals(plan, share))
            site.index("migrate", "cut-over", GALLERY)
            _wait_for(client, probes[0], other_than=digest)
            rates.append(_rates(client, plan, share))
            if share == SHARES[1]:
                site.index("migrate", "roll-back", GALLERY)
                _wait_for(client, probes[0], model=digest)
                after = _answers(client, plan)
    return {
        "enrolled": len(plan.enrolled),
        "mated": len(plan.mated),
        "strangers": len(plan.strangers),
        "rates": [asdict(each) for each in rates],
        "calls": traffic.calls,
        "failures": traffic.failures,
        "answers_compared": len(before),
        "answers_changed_by_roll_back": sum(first != second for first, second in zip(before, after, strict=True)),
    }


def _wait_for(client: Client, probe: bytes, *, other_than: str = "", model: str = "") -> None:
    """Until the server has heard which model is in force; until then, the answers are those of before."""
    while True:
        digest = client.identify(GALLERY, probe).model_digest
        if (other_than and digest != other_than) or digest == model:
            return
        time.sleep(0.2)


def _answers(client: Client, plan: Plan) -> list[Any]:
    found = (client.identify(GALLERY, path.read_bytes(), mode=SearchMode.INVESTIGATION) for _, path in plan.mated[:200])
    return [[[(each.identity, each.score) for each in face.candidates] for face in answer.faces] for answer in found]


def _rates(client: Client, plan: Plan, share: float) -> Rates:
    started = time.perf_counter()
    alarms = np.array([_best(client, path)[1] for path in plan.strangers])
    threshold = float(np.sort(alarms)[-max(1, round(TARGET_FPIR * len(alarms)))]) + 1e-6
    hits = [(name, *_best(client, path)) for name, path in plan.mated]
    missed = sum(found != name or score < threshold for name, found, score in hits)
    model = client.identify(GALLERY, plan.strangers[0].read_bytes()).model_digest
    return Rates(share, model[:12], missed / len(hits), threshold, time.perf_counter() - started)


def _best(client: Client, path: Path) -> tuple[str, float]:
    """The first candidate of the largest face; −1 where there is none."""
    answer = client.identify(GALLERY, path.read_bytes(), mode=SearchMode.INVESTIGATION, faces=FaceSelection.LARGEST)
    for face in answer.faces:
        for candidate in face.candidates[:1]:
            return candidate.identity, candidate.score
    return "", -1.0


def _bars(report: dict[str, Any]) -> list[Bar]:
    rates = report["rates"]
    old = rates[0]["fnir"]
    worst = max(each["fnir"] for each in rates)
    return [
        Bar("failed calls", Side.AT_MOST, 0, len(report["failures"])),
        Bar("worst FNIR of any share, by that of the old model", Side.AT_MOST, 1, worst / old),
        Bar("answers that roll-back changed", Side.AT_MOST, 0, report["answers_changed_by_roll_back"]),
    ]


def _print(report: dict[str, Any]) -> None:
    title = f"{report['enrolled']} people, {report['mated']} mated probes, {report['strangers']} strangers"
    rows = [
        (
            f"{each['share']:.0%}",
            each["in_force"],
            f"{each['fnir']:.2%}",
            f"{each['threshold']:.3f}",
            f"{each['seconds']:.0f}",
        )
        for each in report["rates"]
    ]
    print_table(title, ("share", "model in force", "FNIR at FPIR 1 %", "threshold", "seconds"), rows)


if __name__ == "__main__":
    typer.run(main)
