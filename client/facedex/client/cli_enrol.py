"""`facedex enrol`: photographs of one person, or a folder of people."""

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from facedex.client.calls import Refusal
from facedex.client.cli_output import cell, counted, new_table, print_json, print_line, print_table
from facedex.client.cli_session import ExitCode, GalleryName, Json, complain, connected, pairs, spoken
from facedex.client.client import Client
from facedex.client.faces import Face
from facedex.client.galleries import GuardAction, SeveralFaces
from facedex.client.identities import EnrolFinding, Enrolment, EnrolOutcome, EnrolRequest
from facedex.client.people_folder import PersonPhotograph, people_without_photographs, photographs_in

SeveralFacesChoice = Annotated[
    SeveralFaces | None,
    typer.Option(case_sensitive=False, show_default=False, help="Photographs that show several faces."),
]
DuplicatesChoice = Annotated[
    GuardAction | None,
    typer.Option(case_sensitive=False, show_default=False, help="Persons who seem to be enrolled under another id."),
]
MislabelledChoice = Annotated[
    GuardAction | None,
    typer.Option(case_sensitive=False, show_default=False, help="Photographs that look more like somebody else."),
]


@dataclass(frozen=True, slots=True)
class Notice:
    """Why a photograph was refused, or what was noticed about it."""

    reason: str
    message: str
    other_identity: str = ""
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class PhotographReport:
    """What became of one photograph."""

    photograph: str
    identity: str
    outcome: EnrolOutcome
    template_id: int = 0
    refusals: tuple[Notice, ...] = ()
    warnings: tuple[Notice, ...] = ()
    faces: tuple[Face, ...] = ()


@dataclass(frozen=True, slots=True)
class Waiting:
    """A photograph that was sent and has no answer yet, or why it could not be sent."""

    photograph: PersonPhotograph
    unreadable: Notice | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What each photograph of a command is enrolled with."""

    gallery: str
    display_name: str
    attributes: Mapping[str, str]
    consent_reference: str
    several_faces: SeveralFaces | None
    duplicate_action: GuardAction | None
    mislabel_action: GuardAction | None

    def request(self, photograph: PersonPhotograph, image: bytes) -> EnrolRequest:
        return EnrolRequest(
            self.gallery,
            photograph.identity,
            images=(image,),
            display_name=self.display_name,
            attributes=self.attributes,
            consent_reference=self.consent_reference,
            several_faces=self.several_faces,
            duplicate_action=self.duplicate_action,
            mislabel_action=self.mislabel_action,
        )


def enrol(  # noqa: PLR0913 - one parameter for each option
    context: typer.Context,
    gallery: GalleryName,
    identity: Annotated[
        str | None, typer.Argument(metavar="IDENTITY", help="Your own id of the person.", show_default=False)
    ] = None,
    photographs: Annotated[
        list[Path] | None, typer.Argument(metavar="PHOTO…", help="Photographs of the person.", show_default=False)
    ] = None,
    *,
    folder: Annotated[
        Path | None, typer.Option(metavar="PEOPLE", help="Instead: a folder for each person.", show_default=False)
    ] = None,
    name: Annotated[str, typer.Option(help="Name shown to people.", show_default=False)] = "",
    attribute: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="What searches filter by.", show_default=False)
    ] = None,
    consent: Annotated[str, typer.Option(help="Where the consent is recorded.", show_default=False)] = "",
    several_faces: SeveralFacesChoice = None,
    duplicates: DuplicatesChoice = None,
    mislabelled: MislabelledChoice = None,
    json: Json = False,
) -> None:
    """Enrol photographs of one person, or a whole folder of people.

    \b
    facedex enrol staff ada ada-1.jpg ada-2.jpg --name "Ada Lovelace"
    facedex enrol staff --folder PEOPLE      (PEOPLE/ada/1.jpg, PEOPLE/grace/1.jpg, …)

    A photograph that was enrolled before is not enrolled twice: after a break, run the same command again.
    Exits with 3 where a photograph was refused; the others are enrolled.
    """  # noqa: D301  (the letter that \b stands for keeps lines as they are)
    chosen = _chosen(identity, photographs or [], folder)
    about = About(
        gallery=gallery,
        display_name=name,
        attributes=dict(pairs(attribute, option="--attribute")),
        consent_reference=consent,
        several_faces=several_faces,
        duplicate_action=duplicates,
        mislabel_action=mislabelled,
    )
    started = time.monotonic()
    reports: list[PhotographReport] = []
    with connected(context) as client, ExitStack() as at_end:
        client.get_gallery(gallery)  # one clear error instead of one for each photograph
        if not json:  # also where the stream breaks, or Ctrl-C ends it: what was enrolled stays enrolled
            at_end.callback(lambda: _print_report(reports, seconds=time.monotonic() - started))
        for report in _with_progress(_enrolled(client, about, chosen), total=len(chosen)):
            reports.append(report)
            if json:
                print_json(report)
    if any(report.outcome is EnrolOutcome.REFUSED for report in reports):
        raise typer.Exit(ExitCode.ANSWER_IS_NO)


def _chosen(identity: str | None, photographs: Sequence[Path], folder: Path | None) -> Sequence[PersonPhotograph]:
    if folder is not None and identity is None:
        photographs_of_people = photographs_in(folder)
        for person in people_without_photographs(folder):
            complain(f"there is no photograph in {person}")
        return photographs_of_people
    if folder is None and identity is not None and photographs:
        return [PersonPhotograph(identity, path) for path in photographs]
    raise typer.BadParameter("give either an IDENTITY with one or more PHOTOs, or --folder PEOPLE")


def _enrolled(client: Client, about: About, photographs: Sequence[PersonPhotograph]) -> Iterator[PhotographReport]:
    """One report for each photograph, in order; files that cannot be read are reported without asking the server."""
    waiting: deque[Waiting] = deque()
    for answer in client.enrol_stream(_requests(about, photographs, waiting)):
        yield from _unread(waiting)
        yield _report(waiting.popleft().photograph, answer)
    yield from _unread(waiting)


def _requests(about: About, photographs: Sequence[PersonPhotograph], waiting: deque[Waiting]) -> Iterator[EnrolRequest]:
    for photograph in photographs:
        try:
            image = photograph.path.read_bytes()
        except OSError as error:
            waiting.append(Waiting(photograph, unreadable=Notice("FILE_UNREADABLE", error.strerror or str(error))))
        else:
            waiting.append(Waiting(photograph))
            yield about.request(photograph, image)


def _unread(waiting: deque[Waiting]) -> Iterator[PhotographReport]:
    while waiting and (notice := waiting[0].unreadable):
        yield _refused(waiting.popleft().photograph, notice)


def _report(photograph: PersonPhotograph, answer: Enrolment | Refusal) -> PhotographReport:
    if isinstance(answer, Refusal):
        return _refused(photograph, Notice(answer.error.reason, spoken(answer.error)))
    (result,) = answer.results
    return PhotographReport(
        photograph=str(photograph.path),
        identity=photograph.identity,
        outcome=result.outcome,
        template_id=result.template_id,
        refusals=_notices(result.refusals),
        warnings=_notices(result.warnings),
        faces=result.faces,
    )


def _refused(photograph: PersonPhotograph, notice: Notice) -> PhotographReport:
    return PhotographReport(str(photograph.path), photograph.identity, EnrolOutcome.REFUSED, refusals=(notice,))


def _notices(findings: Iterable[EnrolFinding]) -> tuple[Notice, ...]:
    return tuple(Notice(f.reason.value, f.message, f.other_identity, f.score) for f in findings)


def _with_progress(reports: Iterable[PhotographReport], *, total: int) -> Iterator[PhotographReport]:
    """The same reports, with a bar on the terminal that moves as they come; without a terminal there is no bar."""
    console = Console(stderr=True)
    columns = (TextColumn("enrolling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield from progress.track(reports, total=total)


def _print_report(reports: Sequence[PhotographReport], *, seconds: float) -> None:
    for title, notices in (("refused", "refusals"), ("noticed", "warnings")):
        table = new_table(title, "identity", "why")
        for report in reports:
            for notice in getattr(report, notices):
                table.add_row(cell(report.photograph), cell(report.identity), cell(_spoken(notice)))
        if table.row_count:
            print_table(table)
    print_line(_summary(reports, seconds=seconds))


def _spoken(notice: Notice) -> str:
    return f"looks like {notice.other_identity}: {notice.message}" if notice.other_identity else notice.message


def _summary(reports: Sequence[PhotographReport], *, seconds: float) -> str:
    counts = Counter(report.outcome for report in reports)
    people = counted(len({report.identity for report in reports}), "person", "people")
    photographs = counted(len(reports), "photograph", "photographs")
    outcomes = ", ".join(f"{count} {outcome.value.lower().replace('_', ' ')}" for outcome, count in counts.items())
    return f"{outcomes or 'nothing done'}: {photographs} of {people} in {seconds:.1f} s"
