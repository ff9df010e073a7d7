"""What a container of facedex holds: the packages, their pins and their sizes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("server", "postgres", "tracing")


def shipped_packages(extras: tuple[str, ...] = EXTRAS) -> set[str]:
    """Names of everything that `pip install 'facedex[…]'` installs beside facedex."""
    seen: set[tuple[str, frozenset[str]]] = set()
    due = [("facedex", frozenset(extras))]
    while due:
        package = due.pop()
        if package not in seen:
            seen.add(package)
            due.extend(_required(*package))
    return {name for name, _ in seen} - {"facedex"}


def _required(name: str, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": each}) for each in extras | {""}):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


def megabytes_of(package: str) -> float:
    """Of its files on the disk."""
    files = distribution(package).files or ()
    paths = [Path(str(each.locate())) for each in files]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def pins(lock: str) -> dict[str, str]:
    """The version of each package in a lock file."""
    lines = (line.partition("==") for line in lock.splitlines() if "==" in line)
    return {canonicalize_name(name): version for name, _, version in lines}
