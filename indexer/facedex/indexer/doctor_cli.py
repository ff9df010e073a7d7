"""`facedex-index doctor`: what is likely to be wrong in a gallery, what mending it does to the error rates, and mending it."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.prompt import Confirm
from rich.table import Column, Table

from facedex.indexer.cli_session import check_output, good_order, opened, progress_of, say
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.checkup import Checkup, Outcome, Proposal, carry_out
from facedex.indexer.evaluation.doctor import Ailment, Remedy
from facedex.indexer.gallery import Gallery

SHOWN = 30  # findings of a kind in the table; --json has them all
EVERYTHING = "all"
MENDED = {Outcome.MERGED, Outcome.ERASED}
KINDS = {each.value: each for each in Ailment if each is not Ailment.NEAR_MISSES}

APPLY_HELP = (
    "--apply takes the name of a finding, a kind of them (duplicate, mislabelled, strange, poor) or all, and may be given "
    "several times. Each is asked for, unless --yes. A merge moves the templates of one identity to the other; nobody's last "
    "template is erased. Running servers follow."
)


def add_commands(app: typer.Typer) -> None:
    """Adds the command of this module to the program."""
    app.command("doctor", epilog=APPLY_HELP)(doctor)


def doctor(
    context: typer.Context,
    *,
    gallery: Annotated[str, typer.Option(help="Name of the gallery.")],
    threshold: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Cosine of a match; else the one that decides in the gallery.")
    ] = None,
    apply: Annotated[list[str] | None, typer.Option(metavar="FINDING", help="What to mend, see below.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Mend without asking.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all findings into this file.")] = None,
) -> None:
    """Finds people enrolled twice, wrong labels and poor templates; says what mending does to FPIR and FNIR; mends."""
    with good_order(interrupted="stopped; what was mended before stays mended"), opened(context.obj) as galleries:
        check_output("--json", json_file)
        patient = galleries.get(gallery)
        checkup = _examined(patient, patient.operating_point(requested=threshold).threshold)
        chosen = chosen_of(checkup, apply or [])
        print_checkup(Console(), checkup)
        outcomes = _mended(patient, chosen, is_confirmed=_unasked if yes else _asked)
        if json_file is not None:
            json_file.write_text(json.dumps(document_of(checkup, outcomes), indent=2), encoding="utf-8")
        if MENDED & set(outcomes.values()):
            _say_change(checkup, _examined(patient, checkup.threshold))
        elif checkup.proposals:
            say(
                f"nothing was changed; --apply FINDING mends what stands in the first column, --apply {EVERYTHING} everything"
            )


def _examined(gallery: Gallery, threshold: float) -> Checkup:
    with progress_of("searching the gallery with its own templates") as report:
        return Checkup.of(gallery, threshold=threshold, report=report)


# What is mended


def chosen_of(checkup: Checkup, words: Iterable[str]) -> list[Proposal]:
    """The proposals that are meant, each once; a kind means those of it that need nobody who looks first.

    Raises:
        InvalidArgument: a word names no finding.

    """
    return list({each.name: each for word in words for each in _meant(checkup, word)}.values())


def _meant(checkup: Checkup, word: str) -> list[Proposal]:
    applicable = [each for each in checkup.proposals if each.is_applicable]
    if word == EVERYTHING:
        return applicable
    if word in KINDS:
        return [each for each in applicable if each.ailment is KINDS[word]]
    named = [each for each in checkup.proposals if each.name == word]
    if not named:
        raise InvalidArgument("--apply", f"{word!r} is no finding of this gallery, nor a kind of them")
    return named


def _mended(
    gallery: Gallery, proposals: Iterable[Proposal], *, is_confirmed: Callable[[Proposal], bool]
) -> dict[str, Outcome]:
    """What became of each proposal that was confirmed, by its name."""
    outcomes: dict[str, Outcome] = {}
    for each in proposals:
        if is_confirmed(each):
            outcomes[each.name] = carry_out(gallery, each)
            say(f"{each.name}: {outcomes[each.name].value}")
    return outcomes


def _asked(proposal: Proposal) -> bool:
    try:
        return Confirm.ask(
            f"{proposal.name}: {escape(_question(proposal))}?", console=Console(stderr=True), default=False
        )
    except EOFError:
        raise InvalidArgument("--apply", "nobody is there to confirm; --yes mends without asking") from None


def _unasked(_proposal: Proposal) -> bool:
    return True


def _question(proposal: Proposal) -> str:
    if proposal.finding.remedy is Remedy.MERGE:
        return f"move the {counted(len(proposal.template_ids))} of {proposal.other_id} to {proposal.identity_id}"
    return f"erase template {proposal.template_ids[0]} of {proposal.identity_id} for ever"


def _say_change(before: Checkup, after: Checkup) -> None:
    fpir = change_text(before.before.fpir, after.before.fpir)
    fnir = change_text(before.before.fnir, after.before.fnir)
    say(f"the gallery, searched with its own templates: FPIR {fpir}, FNIR {fnir}")


# What is told


def print_checkup(console: Console, checkup: Checkup) -> None:
    """A table for each kind of finding."""
    console.print(escape(summary_of(checkup)), highlight=False)
    for ailment, title, columns, row in TABLES:
        found = [each for each in checkup.proposals if each.ailment in ailment]
        if found:
            console.print(_table(checkup, title, columns, found, row))


def summary_of(checkup: Checkup) -> str:
    """What was searched, and the error rates as they are."""
    before = checkup.before
    rates = f"FPIR {rate_text(before.fpir)}, FNIR {rate_text(before.fnir)}"
    searched = f"{counted(checkup.templates)} of {checkup.identities} people, each searched among all others"
    too_low = checkup.threshold > checkup.asked
    why = f"; at {checkup.asked:.3f}, more than a tenth of the searches find a stranger: calibrate the gallery"
    cosine = f"{checkup.threshold:.3f}{why if too_low else ''}"
    return f"{searched} at a cosine of {cosine}.\n{rates}; {len(checkup.proposals)} findings"


def _table(
    checkup: Checkup,
    title: str,
    columns: Sequence[str],
    found: Sequence[Proposal],
    row: Callable[[Proposal], Sequence[str]],
) -> Table:
    hidden = len(found) - SHOWN
    table = Table(
        Column("finding", no_wrap=True),
        *columns,
        Column("FPIR", no_wrap=True),
        Column("FNIR", no_wrap=True),
        title=f"{title}: {len(found)}",
        caption=f"and {hidden} more, in --json FILE" if hidden > 0 else None,
    )
    for each in found[:SHOWN]:
        after = each.finding.after
        rates = change_text(checkup.before.fpir, after.fpir), change_text(checkup.before.fnir, after.fnir)
        table.add_row(each.name, *(escape(cell) for cell in row(each)), *rates)
    return table


def _duplicate_row(proposal: Proposal) -> tuple[str, ...]:
    return (
        proposal.other_id,
        counted(len(proposal.template_ids)),
        proposal.identity_id,
        _cosine(proposal.finding.other_cosine),
    )


def _mislabelled_row(proposal: Proposal) -> tuple[str, ...]:
    finding = proposal.finding
    return (
        proposal.identity_id,
        _cosine(finding.own_cosine),
        proposal.other_id,
        _cosine(finding.other_cosine),
        finding.remedy.value,
    )


def _poor_row(proposal: Proposal) -> tuple[str, ...]:
    return proposal.identity_id, _cosine(proposal.finding.own_cosine), _why(proposal), proposal.finding.remedy.value


def _near_misses_row(proposal: Proposal) -> tuple[str, ...]:
    finding = proposal.finding
    return (
        proposal.identity_id,
        counted(len(proposal.template_ids)),
        f"{finding.near_misses} from {finding.other_cosine:.3f}",
    )


TABLES: tuple[tuple[frozenset[Ailment], str, tuple[str, ...], Callable[[Proposal], Sequence[str]]], ...] = (
    (frozenset({Ailment.DUPLICATE}), "Likely one person", ("identity", "has", "would go to", "cosine"), _duplicate_row),
    (
        frozenset({Ailment.MISLABELLED}),
        "Likely a wrong label",
        ("identity", "own cosine", "resembles", "cosine", "proposal"),
        _mislabelled_row,
    ),
    (
        frozenset({Ailment.STRANGE, Ailment.POOR}),
        "Strange or poor templates",
        ("identity", "own cosine", "why", "proposal"),
        _poor_row,
    ),
    (
        frozenset({Ailment.NEAR_MISSES}),
        "Most often the nearest stranger (the rates are those without the identity)",
        ("identity", "has", "near misses"),
        _near_misses_row,
    ),
)


def _why(proposal: Proposal) -> str:
    broken = [each.replace("_", " ") for each in proposal.broken_limits]
    if proposal.ailment is Ailment.STRANGE:
        return ", ".join(["not like its own", *broken])
    return ", ".join(broken) or "hardly like its own"


def _cosine(cosine: float | None) -> str:
    return "–" if cosine is None else f"{cosine:.3f}"


def counted(templates: int) -> str:
    """A number of templates."""
    return f"{templates} template{'' if templates == 1 else 's'}"


def rate_text(rate: float | None) -> str:
    """A share in percent; a dash where nobody was searched."""
    return "–" if rate is None else f"{rate:.2%}"


def change_text(before: float | None, after: float | None) -> str:
    """From one rate to another."""
    return f"{rate_text(before)} → {rate_text(after)}"


def document_of(checkup: Checkup, outcomes: Mapping[str, Outcome]) -> dict[str, object]:
    """Everything that was found, for programs."""
    return {
        "identities": checkup.identities,
        "templates": checkup.templates,
        "threshold": checkup.threshold,
        "before": asdict(checkup.before),
        "findings": [_described(each, outcomes.get(each.name)) for each in checkup.proposals],
    }


def _described(proposal: Proposal, outcome: Outcome | None) -> dict[str, object]:
    finding = proposal.finding
    return {
        "name": proposal.name,
        "kind": finding.ailment.value,
        "proposal": finding.remedy.value,
        "identity": proposal.identity_id,
        "other_identity": proposal.other_id,
        "templates": list(proposal.template_ids),
        "own_cosine": finding.own_cosine,
        "other_cosine": finding.other_cosine,
        "near_misses": finding.near_misses,
        "broken_limits": list(proposal.broken_limits),
        "after": asdict(finding.after),
        "outcome": None if outcome is None else outcome.value,
    }
