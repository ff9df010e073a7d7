"""Faces of CompreFace: photographs are enrolled anew, vectors only of the model that the gallery has."""

from __future__ import annotations

import gzip
import resource
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, text
from tests.indexer.conftest import House
from tests.indexer.doubles import MODEL, Person, person_vector, photograph
from tests.indexer.jobs.compreface_dump import CALCULATOR, PREAMBLE, Face, dump, table, written
from tests.indexer.jobs.test_bulk import enrol, names

from facedex.indexer.enrolment import EnrolOutcome, EnrolReason
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.jobs.bulk_item import BulkSource
from facedex.indexer.jobs.compreface import DumpOptions
from facedex.indexer.jobs.sources import ANY_DUMP, bulk_source

MAX_IMAGE_BYTES = 10_000


def source_at(path: Path, *, model: str | None = None, options: DumpOptions = ANY_DUMP) -> BulkSource:
    return bulk_source(path, model_digest=model, max_image_bytes=MAX_IMAGE_BYTES, dump=options)


def face(person: int, name: str, **changes: object) -> Face:
    vector = 3.5 * person_vector(Person(person)).astype(np.float64)  # of no particular length
    values: dict[str, object] = {"name": name, "vector": vector, "photograph": photograph(Person(person)), **changes}
    return Face(**values)  # type: ignore[arg-type]


def test_photographs_of_a_dump_are_enrolled_anew(house: House, tmp_path: Path) -> None:
    people = [face(1, "ada"), face(2, "Éve O'Neil"), face(1, "ada", photograph=photograph(Person(1), take=2))]
    source = source_at(written(tmp_path / "faces.sql", dump(people)))
    assert source.survey().count == 3
    job, _ = enrol(house, source)
    assert job.result == {"enrolled": 3, "already_enrolled": 0, "refused": 0}
    assert set(names(house)) == {"ada", "Éve O'Neil"}
    assert house.pipeline.detections == 3


def test_a_face_without_a_photograph_is_refused_with_the_reason(house: House, tmp_path: Path) -> None:
    people = [face(1, "ada"), face(2, "eve", photograph=None)]
    _, outcomes = enrol(house, source_at(written(tmp_path / "faces.sql", dump(people))))
    told = {each.item.details.external_id: each.result for each in outcomes}
    assert told["ada"].outcome is EnrolOutcome.ENROLLED
    assert "kept no photograph" in told["eve"].refusals[0].message


def test_a_photograph_that_is_not_in_the_dump_is_refused_too(house: House, tmp_path: Path) -> None:
    content = dump([face(1, "ada"), face(2, "eve")])
    lines = content.split(b"\n")
    photographs = next(place for place, line in enumerate(lines) if line.startswith(b"COPY public.img"))
    del lines[photographs + 1]
    _, outcomes = enrol(house, source_at(written(tmp_path / "faces.sql", b"\n".join(lines))))
    assert [each.result.outcome for each in outcomes] == [EnrolOutcome.ENROLLED, EnrolOutcome.REFUSED]
    assert "the dump lacks" in outcomes[1].result.refusals[0].message


@pytest.mark.parametrize("size", [MAX_IMAGE_BYTES + 1, 3 * MAX_IMAGE_BYTES])
def test_a_photograph_that_is_too_large_is_refused_and_the_next_one_is_read(
    house: House, tmp_path: Path, size: int
) -> None:
    people = [face(1, "ada", photograph=bytes(size)), face(2, "eve")]
    _, outcomes = enrol(house, source_at(written(tmp_path / "faces.sql", dump(people))))
    assert [each.result.outcome for each in outcomes] == [EnrolOutcome.REFUSED, EnrolOutcome.ENROLLED]
    assert f"more than {MAX_IMAGE_BYTES} bytes" in outcomes[0].result.refusals[0].message


def test_vectors_of_the_gallerys_model_are_enrolled_at_unit_length(house: House, tmp_path: Path) -> None:
    source = source_at(written(tmp_path / "faces.sql", dump([face(1, "ada")])), model=MODEL.digest)
    job, _ = enrol(house, source)
    assert job.result == {"enrolled": 1, "already_enrolled": 0, "refused": 0}
    (vector,) = house.store.vectors(house.gallery.record, "ada")
    assert vector @ person_vector(Person(1)) == pytest.approx(1, abs=1e-3)
    assert house.pipeline.detections == 0


def test_each_vector_of_another_calculator_is_refused_with_the_reason(house: House, tmp_path: Path) -> None:
    people = [face(1, "ada"), face(2, "eve", calculator="facenet.Calculator")]
    file = written(tmp_path / "faces.sql", dump(people))
    with pytest.raises(InvalidArgument, match=r"1 vectors of double.Calculator, 1 vectors of facenet.Calculator"):
        source_at(file, model=MODEL.digest).survey()
    options = DumpOptions(calculator=CALCULATOR)
    _, outcomes = enrol(house, source_at(file, model=MODEL.digest, options=options))
    assert [each.result.outcome for each in outcomes] == [EnrolOutcome.ENROLLED, EnrolOutcome.REFUSED]
    (finding,) = outcomes[1].result.refusals
    assert finding.reason is EnrolReason.WRONG_MODEL
    assert "facenet.Calculator made the vector" in finding.message


@pytest.mark.parametrize("vector", [np.zeros(32), np.full(32, np.nan), np.full(32, np.inf), np.ones(7)])
def test_a_vector_that_is_none_is_refused_and_the_next_one_is_read(
    house: House, tmp_path: Path, vector: np.ndarray
) -> None:
    people = [face(1, "ada", vector=vector), face(2, "eve")]
    source = source_at(written(tmp_path / "faces.sql", dump(people)), model=MODEL.digest)
    _, outcomes = enrol(house, source)
    assert [each.result.outcome for each in outcomes] == [EnrolOutcome.REFUSED, EnrolOutcome.ENROLLED]
    assert outcomes[0].result.refusals[0].reason is EnrolReason.VECTOR_INVALID


def test_of_several_face_collections_one_is_named_and_no_key_is_shown(house: House, tmp_path: Path) -> None:
    people = [face(1, "ada", key="secret-1"), face(2, "ada", key="secret-2"), face(3, "joe", key="secret-2")]
    collections = {"door": "secret-1", "gate": "secret-2"}
    file = written(tmp_path / "faces.sql", dump(people, collections=collections))
    with pytest.raises(InvalidArgument, match=r"2 face collections \(door, gate\)") as refused:
        source_at(file).survey()
    assert "secret" not in str(refused.value)
    by_name, by_key = (source_at(file, options=DumpOptions(each)) for each in ("gate", "secret-2"))
    assert [each.details.external_id for each in by_key.items()] == ["ada", "joe"]
    job, _ = enrol(house, by_name)
    assert job.result == {"enrolled": 2, "already_enrolled": 0, "refused": 0}


def test_a_dump_may_be_compressed(house: House, tmp_path: Path) -> None:
    file = written(tmp_path / "faces.sql.gz", gzip.compress(dump([face(1, "ada")])))
    job, _ = enrol(house, source_at(file))
    assert job.result == {"enrolled": 1, "already_enrolled": 0, "refused": 0}


def test_a_name_is_read_as_it_was_escaped(tmp_path: Path) -> None:
    name = "back\\slash Ⅷ"
    (item,) = source_at(written(tmp_path / "faces.sql", dump([face(1, name)]))).items()
    assert item.details.external_id == name


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no rows of a table subject"),
        (b"PGDMP\x01\x0e", "pg_restore"),
        (b"SET client_encoding = 'LATIN1';\n", "UTF8"),
        (b"INSERT INTO public.subject VALUES ('1', '2', 'ada');\n", "--inserts"),
        (dump([face(1, "ada")])[:-120], "line 32 has 1 fields"),
        (dump([face(1, "ada")]).rpartition(b"\\.")[0], "ends in the middle of table subject"),
        (table("subject", "id, name", [("1", "ada")]).encode(), "has no column api_key"),
        (table("subject", "id, api_key, subject_name", [("1", "2")]).encode(), "line 2 has 2 fields"),
        (table("subject", "id, api_key, subject_name", [("1", "2", "ada")]).encode(), "nobody with an embedding"),
        (dump([face(1, "ada", photograph=None)]), "holds no photographs, only 1 vectors of double.Calculator"),
        (dump([face(1, "tab\there")]), "control characters"),
    ],
)
def test_what_is_no_dump_of_compreface_is_refused_with_the_reason(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        source_at(written(tmp_path / "faces.sql", content)).survey()


def test_what_is_meant_for_a_dump_is_refused_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="are for a dump"):
        source_at(tmp_path, options=DumpOptions("door"))
    file = written(tmp_path / "faces.sql", dump([face(1, "ada")]))
    with pytest.raises(InvalidArgument, match="is for vectors"):
        source_at(file, options=DumpOptions(calculator=CALCULATOR))


@pytest.mark.parametrize("name", ["representations_arcface.pkl", "gallery.pickle", "lfw.bin"])
@pytest.mark.parametrize("model", [None, MODEL.digest])
def test_a_pickle_is_refused_with_the_reason_and_never_read(tmp_path: Path, name: str, model: str | None) -> None:
    with pytest.raises(InvalidArgument, match=r"can run any program.*docs/coming-from.md"):
        source_at(written(tmp_path / name, b"cos\nabort\n(tR."), model=model)


def test_a_large_dump_takes_little_memory(tmp_path: Path) -> None:
    # 60 MB of photographs that nobody wants, and one that is wanted.
    rows = chain.from_iterable((f"{number}\t\\\\x".encode(), b"00" * 1_000_000, b"\n") for number in range(30))
    with (tmp_path / "faces.sql").open("wb") as file:
        file.write(PREAMBLE.encode() + b"COPY public.img (id, content) FROM stdin;\n")
        file.writelines(rows)
        file.write(b"\\.\n" + dump([face(1, "ada")]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert source_at(tmp_path / "faces.sql").survey().count == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # in units of 1 KiB


def test_a_dump_of_a_real_postgresql_is_read(house: House, tmp_path: Path) -> None:
    """COPY TO writes what pg_dump does, with its own escapes."""
    if not house.url.startswith("postgresql"):
        pytest.skip("it takes a PostgreSQL")
    name = 'O\'Hara "Ⅷ" \\x41 back\\slash'
    engine = create_engine(house.url)
    people = {"name": name, "content": photograph(Person(1)), "vector": person_vector(Person(1)).tolist()}
    with engine.begin() as connection:
        for statement in (
            "CREATE TABLE subject (id uuid, api_key varchar(36), subject_name varchar(255))",
            "CREATE TABLE img (id uuid, content bytea)",
            "CREATE TABLE embedding (id uuid, subject_id uuid, embedding float8[], calculator varchar(255), img_id uuid)",
            "INSERT INTO subject VALUES (gen_random_uuid(), 'key', :name)",
            "INSERT INTO img VALUES (gen_random_uuid(), :content)",
            "INSERT INTO embedding SELECT gen_random_uuid(), subject.id, :vector, 'double.Calculator', img.id FROM subject, img",
        ):
            connection.execute(text(statement), people)
        content = b"SET client_encoding = 'UTF8';\n"
        cursor = connection.connection.cursor()
        for each, columns in (
            ("embedding", "id, subject_id, embedding, calculator, img_id"),
            ("img", "id, content"),
            ("subject", "id, api_key, subject_name"),
        ):
            with cursor.copy(f"COPY {each} ({columns}) TO STDOUT") as copied:
                rows = b"".join(bytes(part) for part in copied)
            content += f"COPY public.{each} ({columns}) FROM stdin;\n".encode() + rows + b"\\.\n\n"
    engine.dispose()
    file = written(tmp_path / "faces.sql", content)
    for model in (None, MODEL.digest):
        job, _ = enrol(house, source_at(file, model=model))
        assert job.result is not None
        assert job.result["refused"] == 0
    assert names(house) == [name]
