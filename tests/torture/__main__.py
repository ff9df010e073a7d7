"""`python -m tests.torture --kills N`: kills servers under load, and counts what was lost and what came back.

The last line is `torture: K kills, L lost, R resurrected`; the exit code is 1 where any promise was broken.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.databases import postgresql_databases
from tests.torture.inquest import Depth
from tests.torture.ledger import Fault
from tests.torture.nursery import Nursery
from tests.torture.site import Site

from facedex.indexer.store.engine import sqlite_url

logger = logging.getLogger("torture")

LARGE_SHARE = 10
"""One kill in so many is of a server over a large gallery, whose index is sealed, saved and rebuilt."""
POSTGRESQL_SHARE = 5
"""With both databases, so many times as many kills on SQLite as on PostgreSQL."""
TOLD_EVERY = 50


@dataclass(frozen=True, slots=True)
class Place:
    """A database that is tortured: a small gallery, where starts are fast, and a large one."""

    name: str
    kills: int
    small: Site
    large: Site

    def run(self, tell: Callable[[str], None]) -> None:
        started = time.monotonic()
        for number in range(1, self.kills + 1):
            site = self.large if number % LARGE_SHARE == 0 else self.small
            for problem in site.random_cycle():
                tell(f"{self.name}, kill {number}: {problem.fault.value}: {problem.text}")
            if number % TOLD_EVERY == 0 or number == self.kills:
                tell(f"{self.name}: {number} kills, {(time.monotonic() - started) / number:.2f} s each")
        for site in (self.small, self.large):
            for problem in site.check(Depth.EVERYBODY):
                tell(f"{self.name}, at the end: {problem.fault.value}: {problem.text}")

    def summary(self) -> str:
        tallies = (self.small.tally, self.large.tally)
        steps: dict[str, int] = {}
        for tally in tallies:
            for step, count in tally.at_steps.items():
                steps[step] = steps.get(step, 0) + count
        missed = sum(each.missed_steps for each in tallies)
        answers = sum(each.answers for each in tallies)
        return (
            f"{self.name}: {sum(each.kills for each in tallies)} kills, {answers} answered calls; at fail-points: "
            f"{', '.join(f'{step} {count}' for step, count in sorted(steps.items()))}; not reached: {missed}"
        )

    def count(self, fault: Fault) -> int:
        return sum(each.fault is fault for site in (self.small, self.large) for each in site.tally.problems)


def main() -> int:
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    options = _options()
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        nursery = stack.enter_context(Nursery(folder / "servers.log"))
        places = [
            _place(name, kills, folder / name, stack, options=options, nursery=nursery)
            for name, kills in _shares(options.database, options.kills).items()
        ]
        for place in places:
            place.run(_tell)
    return _conclude(places)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="on SQLite, or on the one database that is named")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--store", choices=["honest", "hasty"], default="honest", help="hasty: breaks its word")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep data and logs there, for instance to look at a failure")
    return parser.parse_args()


def _shares(database: str, kills: int) -> dict[str, int]:
    if database == "both":
        return {"sqlite": kills, "postgresql": max(1, kills // POSTGRESQL_SHARE)}
    return {database: kills}


def _place(
    name: str, kills: int, folder: Path, stack: ExitStack, *, options: argparse.Namespace, nursery: Nursery
) -> Place:
    folder.mkdir(parents=True)
    databases = stack.enter_context(_databases(name, folder))
    small, large = (
        Site(folder / size, next(databases), nursery, seed=2 * options.seed + number, store=options.store)
        for number, size in enumerate(("small", "large"))
    )
    if kills >= LARGE_SHARE:
        large.add_crowd()
    return Place(name, kills, small, large)


@contextmanager
def _databases(name: str, folder: Path) -> Generator[Iterator[str]]:
    if name == "sqlite":
        yield (sqlite_url(folder / f"{number}.db") for number in itertools.count())
        return
    with postgresql_databases(folder / "server") as make_database:
        yield (make_database() for _ in itertools.count())


def _conclude(places: list[Place]) -> int:
    for place in places:
        _tell(place.summary())
    kills = sum(site.tally.kills for place in places for site in (place.small, place.large))
    lost, back, half = (sum(place.count(each) for place in places) for each in Fault)
    if half:
        _tell(f"{half} half there")
    _tell(f"torture: {kills} kills, {lost} lost, {back} resurrected")
    return 1 if lost or back or half else 0


def _tell(line: str) -> None:
    logger.info(line)


if __name__ == "__main__":
    sys.exit(main())
