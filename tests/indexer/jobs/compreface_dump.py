"""Dumps as pg_dump writes them of a CompreFace database, made here from nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

CALCULATOR = "double.Calculator"
KEY = "00000000-0000-0000-0000-000000000002"
PREAMBLE = """--
-- PostgreSQL database dump
--

SET statement_timeout = 0;
SET client_encoding = 'UTF8';

CREATE TABLE public.embedding (
    id uuid NOT NULL
);

"""


@dataclass(frozen=True)
class Face:
    """An embedding of a subject, and its photograph if it was kept."""

    name: str
    vector: NDArray[np.float64] = field(default_factory=lambda: np.array([1.0, 0.0]))
    photograph: bytes | None = None
    calculator: str = CALCULATOR
    key: str = KEY


def number(kind: int, place: int) -> str:
    return str(UUID(int=(kind << 64) + place))


def escaped(text: str) -> str:
    for plain, written in (("\\", "\\\\"), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r"), ("\b", "\\b")):
        text = text.replace(plain, written)
    return text


def table(name: str, columns: str, rows: Sequence[Sequence[str]]) -> str:
    lines = "".join("\t".join(row) + "\n" for row in rows)
    return f"COPY public.{name} ({columns}) FROM stdin;\n{lines}\\.\n\n\n"


def dump(faces: Sequence[Face], *, collections: dict[str, str] | None = None) -> bytes:
    """The tables in pg_dump's order: by name."""
    people = list(dict.fromkeys((each.key, each.name) for each in faces))
    embeddings = [
        (
            number(1, place),
            number(2, people.index((each.key, each.name))),
            "{" + ",".join(map(repr, each.vector.tolist())) + "}",
            each.calculator,
            "\\N" if each.photograph is None else number(3, place),
        )
        for place, each in enumerate(faces)
    ]
    photographs = [
        (number(3, place), "\\\\x" + each.photograph.hex())
        for place, each in enumerate(faces)
        if each.photograph is not None
    ]
    models = [(str(place), name, key, "R") for place, (name, key) in enumerate((collections or {}).items())]
    subjects = [(number(2, place), key, escaped(name)) for place, (key, name) in enumerate(people)]
    tables = (
        table("app", "id, name", [("1", "an application")]),
        table("embedding", "id, subject_id, embedding, calculator, img_id", embeddings),
        table("img", "id, content", photographs),
        table("model", "id, name, api_key, type", models),
        table("subject", "id, api_key, subject_name", subjects),
    )
    return (PREAMBLE + "".join(tables) + "ALTER TABLE public.img OWNER TO postgres;\n").encode()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
