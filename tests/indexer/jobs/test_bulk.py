"""Bulk enrolment: groups in one transaction each, a ledger, and a report of what was refused."""

from __future__ import annotations

import io
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.indexer.conftest import House
from tests.indexer.doubles import MODEL, Person, person_vector, photograph
from tests.waiting import wait_until

from facedex.indexer.enrolment import EnrolOutcome, EnrolReason
from facedex.indexer.errors import InvalidArgument, JobTaken, StoreUnavailable
from facedex.indexer.jobs import bulk as bulk_module
from facedex.indexer.jobs import cancelling
from facedex.indexer.jobs.bulk import GROUP_ITEMS, BulkEnrolment, BulkOutcome
from facedex.indexer.jobs.bulk_item import BulkItem, BulkSource, Survey
from facedex.indexer.jobs.look_ahead import MOST_AHEAD
from facedex.indexer.jobs.owner import is_gone, this_process
from facedex.indexer.jobs.runner import SILENCE, JobRunner
from facedex.indexer.jobs.sources import bulk_source
from facedex.indexer.store.records import IdentityDetails, JobRecord, JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL_DIGEST = MODEL.digest
MANY = 3 * GROUP_ITEMS + 5
WAIT_SECONDS = 60


class Photographs:
    """A source of photographs in memory; remembers which of them were looked at."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.read: list[str] = []

    def survey(self) -> Survey:
        return Survey.of_parts(self.contents, len(self.contents))

    def items(self) -> Iterator[BulkItem]:
        for place in self.contents:
            yield BulkItem(place, IdentityDetails(place.split("/")[0]), partial(self._read, place))

    def _read(self, place: str) -> bytes:
        self.read.append(place)
        return self.contents[place]


def crowd(count: int) -> Photographs:
    return Photographs({f"p{number}/1": photograph(Person(number)) for number in range(count)})


def bulk_of(house: House) -> BulkEnrolment:
    return BulkEnrolment(house.store, house.enroller, workers=2)


def enrol(house: House, source: BulkSource) -> tuple[JobRecord, list[BulkOutcome]]:
    bulk = bulk_of(house)
    job = bulk.begin("staff", source.survey())
    outcomes = [outcome for group in bulk.run(job, source) for outcome in group]
    return house.store.job(job.id), outcomes


def enrol_groups(house: House, source: BulkSource, count: int) -> JobRecord:
    """As many groups as that; then it is stopped in good order."""
    bulk = bulk_of(house)
    job = bulk.begin("staff", source.survey())
    with closing(bulk.run(job, source)) as groups:
        for _ in range(count):
            next(groups)
    return house.store.job(job.id)


def names(house: House) -> list[str]:
    return [each.external_id for each in house.store.identities(house.gallery.record, limit=1000)]


def test_everybody_is_enrolled_and_the_job_says_how_many(house: House) -> None:
    job, outcomes = enrol(house, crowd(MANY))
    assert (job.state, job.position, job.progress) == (JobState.DONE, MANY, 1.0)
    assert job.result == {"enrolled": MANY, "already_enrolled": 0, "refused": 0}
    assert [each.item.place for each in outcomes] == list(crowd(MANY).contents)
    assert house.gallery.template_count == MANY


def test_a_group_is_one_change_of_all_or_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    source = crowd(MANY)
    enrol_groups(house, source, 1)
    assert len(names(house)) == GROUP_ITEMS

    def broken(*_arguments: object, **_named: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr("facedex.indexer.store.ledger_rows.put_mark", broken)
    with pytest.raises(RuntimeError):
        enrol(house, source)
    assert len(names(house)) == GROUP_ITEMS


def test_after_a_stop_the_same_call_goes_on_and_looks_at_nothing_twice(house: House) -> None:
    stopped = enrol_groups(house, crowd(MANY), 2)
    assert (stopped.state, stopped.position) == (JobState.WAITING, 2 * GROUP_ITEMS)
    again = crowd(MANY)
    job, outcomes = enrol(house, again)
    assert (job.id, job.state) == (stopped.id, JobState.DONE)
    assert len(outcomes) == len(again.read) == MANY - 2 * GROUP_ITEMS
    assert job.result == {"enrolled": MANY, "already_enrolled": 0, "refused": 0}


def test_another_content_of_the_source_is_another_enrolment(house: House) -> None:
    stopped = enrol_groups(house, crowd(MANY), 1)
    job, _ = enrol(house, crowd(MANY + 1))
    assert job.id != stopped.id
    assert job.result == {"enrolled": MANY + 1 - GROUP_ITEMS, "already_enrolled": GROUP_ITEMS, "refused": 0}


def test_what_was_noticed_is_in_the_ledger_by_position_and_without_a_name(house: House) -> None:
    source = crowd(GROUP_ITEMS)
    source.contents |= {"secret-name/nothing": b"no photograph", "other/1": photograph(Person(3), take=1)}
    job, outcomes = enrol(house, source)
    assert job.result == {"enrolled": GROUP_ITEMS + 1, "already_enrolled": 0, "refused": 1}
    findings = list(house.store.bulk_findings(job))
    assert [(each.position, each.is_refusal, each.reason) for each in findings] == [
        (GROUP_ITEMS, True, "image_unreadable"),
        (GROUP_ITEMS + 1, False, "duplicate_person"),
    ]
    assert "secret-name" not in str(findings)
    assert [each.result.outcome for each in outcomes[-2:]] == [EnrolOutcome.REFUSED, EnrolOutcome.ENROLLED]


def test_duplicates_are_noticed_within_a_group_too(house: House) -> None:
    source = Photographs({"ada/1": photograph(Person(1)), "eve/1": photograph(Person(1), take=2)})
    _, (ada, eve) = enrol(house, source)
    assert ada.result.warnings == ()
    (finding,) = eve.result.warnings
    assert (finding.reason, finding.other_identity_id) == (EnrolReason.DUPLICATE_PERSON, "ada")


def test_a_rehearsal_tells_the_same_and_keeps_nothing(house: House) -> None:
    source = Photographs(
        {"ada/1": photograph(Person(1)), "eve/1": photograph(Person(1), take=2), "joe/1": b"no photograph"}
    )
    rehearsed = [each.result.outcome for group in bulk_of(house).rehearse(source) for each in group]
    assert names(house) == []
    _, outcomes = enrol(house, source)
    assert rehearsed == [each.result.outcome for each in outcomes]


def test_findings_come_in_pages_without_a_gap(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facedex.indexer.store.ledger_rows.FINDINGS_AT_ONCE", 7)
    source = Photographs({f"p{number}/1": b"no photograph" for number in range(50)})
    job, _ = enrol(house, source)
    assert [each.position for each in house.store.bulk_findings(job)] == list(range(50))


# Whose job it is


def test_a_job_of_a_process_that_lives_is_left_alone(house: House) -> None:
    bulk_of(house).begin("staff", crowd(5).survey())
    with pytest.raises(JobTaken):
        bulk_of(house).begin("staff", crowd(5).survey())


def test_a_job_of_a_process_that_died_is_gone_on_with_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bulk_of(house).begin("staff", crowd(5).survey())

    def is_dead(owner: str) -> bool:
        return owner == first.owner

    monkeypatch.setattr(cancelling, "is_gone", is_dead)
    assert bulk_of(house).begin("staff", crowd(5).survey()).id == first.id


def test_a_job_whose_owner_is_silent_is_gone_on_with(house: House) -> None:
    first = bulk_of(house).begin("staff", crowd(5).survey())
    house.clock.advance(seconds=SILENCE.total_seconds() + 1)
    assert bulk_of(house).begin("staff", crowd(5).survey()).id == first.id


def test_who_lost_a_job_writes_nothing_any_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_module, "LOOK_SECONDS", 3_600)  # as if this process had been put to sleep
    source = crowd(MANY)
    bulk = bulk_of(house)
    first = bulk.begin("staff", source.survey())
    with closing(bulk.run(first, source)) as groups:
        next(groups)
        house.clock.advance(seconds=SILENCE.total_seconds() + 1)
        bulk_of(house).begin("staff", source.survey())
        with pytest.raises(JobTaken):
            next(groups)
    assert len(names(house)) == GROUP_ITEMS
    assert house.store.job(first.id).state is JobState.RUNNING  # the other one's


def test_a_cancelled_enrolment_stops_with_what_it_has(house: House) -> None:
    source = crowd(MANY)
    bulk = bulk_of(house)
    job = bulk.begin("staff", source.survey())
    with closing(bulk.run(job, source)) as groups:
        next(groups)
        house.store.cancel_job(job.id)
        with pytest.raises(JobTaken):
            next(groups)
    ended = house.store.job(job.id)
    assert (ended.state, ended.position) == (JobState.CANCELLED, GROUP_ITEMS)
    assert ended.result == {"enrolled": GROUP_ITEMS, "already_enrolled": 0, "refused": 0}


class Slow(Photographs):
    """Photographs of which the last one of the first group takes for ever, until somebody lets it go."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        super().__init__(contents)
        self.is_waiting, self.may_go_on = threading.Event(), threading.Event()

    def _read(self, place: str) -> bytes:
        if place == f"p{GROUP_ITEMS - 1}/1":
            self.is_waiting.set()
            assert self.may_go_on.wait(WAIT_SECONDS)
        return super()._read(place)


def test_a_cancellation_is_noticed_while_a_group_is_looked_at(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_module, "LOOK_SECONDS", 0.02)
    source = Slow(crowd(3 * MOST_AHEAD).contents)
    with ThreadPoolExecutor(1) as thread:
        ended = thread.submit(enrol, house, source)
        assert source.is_waiting.wait(WAIT_SECONDS)
        (job,) = house.store.jobs()
        cancelling.cancel(house.store, job.id)
        wait_until(lambda: "watch" not in {each.name for each in threading.enumerate()})
        source.may_go_on.set()
        with pytest.raises(JobTaken):
            ended.result(WAIT_SECONDS)
    assert (house.store.job(job.id).state, house.store.job(job.id).position) == (JobState.CANCELLED, 0)
    assert len(source.read) < 2 * MOST_AHEAD
    assert names(house) == []


def test_a_process_shows_that_it_lives_while_a_group_is_looked_at(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_module, "LOOK_SECONDS", 0.02)
    source = Slow(crowd(MANY).contents)
    with ThreadPoolExecutor(1) as thread:
        ended = thread.submit(enrol, house, source)
        assert source.is_waiting.wait(WAIT_SECONDS)
        house.clock.advance(seconds=SILENCE.total_seconds() + 1)
        (job,) = house.store.jobs()
        wait_until(lambda: house.store.job(job.id).heartbeat_at == house.clock.now)
        assert not cancelling.is_abandoned(house.store.job(job.id), house.clock.now)
        source.may_go_on.set()
        assert ended.result(WAIT_SECONDS)[0].state is JobState.DONE


def test_a_job_that_nobody_works_on_is_cancelled_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = enrol_groups(house, crowd(MANY), 1)
    assert cancelling.cancel(house.store, waiting.id).state is JobState.CANCELLED
    lost = bulk_of(house).begin("staff", crowd(5).survey())
    assert cancelling.cancel(house.store, lost.id).state is JobState.RUNNING  # its process is asked to stop

    def is_dead(owner: str) -> bool:
        return owner == lost.owner

    monkeypatch.setattr(cancelling, "is_gone", is_dead)
    assert cancelling.cancel(house.store, lost.id).state is JobState.CANCELLED
    assert enrol(house, crowd(5))[0].id != lost.id


def test_no_server_takes_a_bulk_enrolment_up(house: House) -> None:
    enrol_groups(house, crowd(MANY), 1)
    assert JobRunner(house.store, {}).run_one() is None


def test_processes_are_known_by_machine_and_number() -> None:
    own = this_process()
    host, number, _ = own.split(":")
    assert not is_gone(own)
    assert is_gone(f"{host}:4194305:0")  # above the largest number that Linux gives
    assert not is_gone(f"elsewhere:{number}:0")
    assert not is_gone("nonsense")


def test_a_database_that_is_away_for_a_moment_is_waited_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_module, "RETRY_SECONDS", (0.0, 0.0))
    enrol_all, failures = house.store.enrol_all, iter([StoreUnavailable("away"), None, StoreUnavailable("away")])

    def shaky(*arguments: object, **named: object) -> object:
        failure = next(failures, None)
        if failure is not None:
            raise failure
        return enrol_all(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(house.store, "enrol_all", shaky)
    job, _ = enrol(house, crowd(MANY))
    assert job.result == {"enrolled": MANY, "already_enrolled": 0, "refused": 0}


def test_a_database_that_goes_away_in_a_commit_is_waited_for_before_it_is_asked_what_it_has(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_module, "RETRY_SECONDS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(bulk_module, "LOOK_SECONDS", 60.0)  # only the ledger asks for the job
    enrol_all, job_of = house.store.enrol_all, house.store.job
    away: Iterator[StoreUnavailable] = iter(())

    def fails_once(*_: object, **__: object) -> object:
        nonlocal away
        monkeypatch.setattr(house.store, "enrol_all", enrol_all)
        away = iter([StoreUnavailable("away"), StoreUnavailable("away")])
        raise StoreUnavailable("away")

    def shaky(job_id: int) -> object:
        for failure in away:
            raise failure
        return job_of(job_id)

    monkeypatch.setattr(house.store, "enrol_all", fails_once)
    monkeypatch.setattr(house.store, "job", shaky)
    job, _ = enrol(house, crowd(MANY))
    assert job.result == {"enrolled": MANY, "already_enrolled": 0, "refused": 0}
    assert next(away, None) is None


# Sources


def places(source: BulkSource) -> list[tuple[str, str]]:
    return [(each.place, each.details.external_id) for each in source.items()]


def source_at(path: Path, *, model_digest: str | None = None) -> BulkSource:
    return bulk_source(path, model_digest=model_digest, max_image_bytes=1_000)


def test_a_list_names_path_identity_and_attributes(house: House, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photograph(Person(1)))
    (tmp_path / "list.csv").write_text("path,identity,display_name,team\na.jpg,ada,Ada,red\nb.jpg,eve,,\n")
    _, (ada, eve) = enrol(house, source_at(tmp_path / "list.csv"))
    assert (ada.result.outcome, eve.result.outcome) == (EnrolOutcome.ENROLLED, EnrolOutcome.REFUSED)
    record = house.store.identity(house.gallery.record, "ada")
    assert (record.display_name, record.attributes) == ("Ada", {"team": "red"})
    assert "No such file" in eve.result.refusals[0].message


def test_a_list_may_be_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.jpg", "b.jpg"], "identity": ["ada", "7"]}), tmp_path / "list.parquet")
    source = source_at(tmp_path / "list.parquet")
    assert [identity for _, identity in places(source)] == ["ada", "7"]
    assert source.survey().count == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("path;identity\n", "no column path"),
        ("path,identity\na.jpg\n", "another number of fields"),
        ("path,identity\na.jpg,\n", "row 1 has no path or no identity"),
        ('path,identity\n"a.jpg,ada\n', "no CSV"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(InvalidArgument, match=told):
        places(source_at(tmp_path / "list.csv"))


def test_what_is_hidden_in_a_folder_is_nobody(tmp_path: Path) -> None:
    for name in ("ada/1.jpg", "ada/._1.jpg", ".thumbnails/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert places(source_at(tmp_path)) == [(str(tmp_path / "ada" / "1.jpg"), "ada")]


def test_a_tar_holds_a_folder_a_person(house: House, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "people.tar.gz", "w:gz") as tar:
        for name, content in (
            ("x/ada/1.jpg", photograph(Person(1))),
            ("x/ada/notes.txt", b""),
            ("x/ada/._1.jpg", b"of a system that keeps files beside files"),
            ("x/.thumbnails/1.jpg", photograph(Person(1))),
            ("x/eve/1.png", photograph(Person(2))),
            ("x/huge/1.png", bytes(2_000)),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    source = source_at(tmp_path / "people.tar.gz")
    assert source.survey().count == 3
    job, outcomes = enrol(house, source)
    assert job.result == {"enrolled": 2, "already_enrolled": 0, "refused": 1}
    assert "1000 are the most" in outcomes[2].result.refusals[0].message


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_vectors_with_their_model_are_enrolled_without_a_photograph(house: House, tmp_path: Path, kind: str) -> None:
    vectors = np.stack([person_vector(Person(number)) for number in range(40)])
    identities = [f"p{number}" for number in range(40)]
    file = tmp_path / f"vectors.{kind}"
    if kind == "npz":
        np.savez(file, vectors=vectors, identities=np.array(identities))
    else:
        pq.write_table(pa.table({"vectors": list(vectors), "identities": identities}), file)
    job, _ = enrol(house, source_at(file, model_digest=MODEL_DIGEST))
    assert job.result == {"enrolled": 40, "already_enrolled": 0, "refused": 0}
    assert house.pipeline.detections == 0


def test_a_vector_that_is_none_is_refused_and_the_others_are_enrolled(house: House, tmp_path: Path) -> None:
    vectors = np.stack([person_vector(Person(number)) for number in range(3)])
    vectors[1] = np.nan
    np.savez(tmp_path / "vectors.npz", vectors=vectors, identities=np.array(["a", "b", "c"]))
    job, outcomes = enrol(house, source_at(tmp_path / "vectors.npz", model_digest=MODEL_DIGEST))
    assert job.result == {"enrolled": 2, "already_enrolled": 0, "refused": 1}
    assert outcomes[1].result.refusals[0].reason is EnrolReason.VECTOR_INVALID


@pytest.mark.parametrize(
    ("name", "model", "told"),
    [
        ("missing", None, "no folder or file"),
        ("people.xyz", None, "none of"),
        ("vectors.npz", None, "--model"),
        ("list.csv", MODEL_DIGEST, "none of"),
    ],
)
def test_what_is_no_source_is_refused_with_the_reason(tmp_path: Path, name: str, model: str | None, told: str) -> None:
    if name != "missing":
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InvalidArgument, match=told):
        source_at(tmp_path / name, model_digest=model)


@pytest.mark.parametrize("name", ["people.tar", "vectors.npz", "vectors.parquet"])
def test_a_damaged_file_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"neither this nor that")
    source = source_at(tmp_path / name, model_digest=MODEL_DIGEST if "vectors" in name else None)
    with pytest.raises(InvalidArgument, match=r"can be read|plain arrays"):
        source.survey()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="holds no photographs"):
        source_at(tmp_path).survey()


@pytest.mark.parametrize("cut", [0.3, 0.7, 0.95])
def test_a_tar_that_ends_early_is_refused_before_anybody_is_enrolled(house: House, tmp_path: Path, cut: float) -> None:
    noise = np.random.default_rng(1)
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as tar:
        for number in range(40):
            member = tarfile.TarInfo(f"p{number}/1.jpg")
            member.size = 500
            tar.addfile(member, io.BytesIO(noise.bytes(500)))
    content = (tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(content[: int(cut * len(content))])
    with pytest.raises(InvalidArgument, match="is damaged"):
        enrol(house, source_at(tmp_path / "cut.tar.gz"))
    assert names(house) == []


@pytest.mark.parametrize("identity", ["a\tb", "x" * 256])
@pytest.mark.parametrize("kind", ["folder", "csv", "parquet", "npz"])
def test_a_name_that_the_store_does_not_take_is_told_before_anybody_is_enrolled(
    house: House, tmp_path: Path, identity: str, kind: str
) -> None:
    file = tmp_path / f"source.{kind}"
    vectors = [person_vector(Person(number)) for number in range(2)]
    if kind == "folder":
        identity = identity[:255].replace("x", "\n")  # a file system takes no longer name
        file.mkdir()
        (file / identity[:100]).mkdir()
        (file / identity[:100] / "1.jpg").write_bytes(photograph(Person(1)))
    elif kind == "csv":
        file.write_text(f'path,identity\na.jpg,ada\na.jpg,"{identity}"\n')
    elif kind == "parquet":
        pq.write_table(pa.table({"vectors": vectors, "identities": ["ada", identity]}), file)
    else:
        np.savez(file, vectors=np.stack(vectors), identities=np.array(["ada", identity]))
    with pytest.raises(InvalidArgument, match=r"control characters|1 to 255"):
        enrol(house, source_at(file, model_digest=MODEL_DIGEST if kind in {"parquet", "npz"} else None))
    assert names(house) == []


def test_a_source_that_turns_out_damaged_ends_its_job_with_the_reason(house: House) -> None:
    class Damaged(Photographs):
        def items(self) -> Iterator[BulkItem]:
            yield from super().items()
            raise InvalidArgument("people.tar", "is damaged")

    source = Damaged(crowd(GROUP_ITEMS).contents)
    with pytest.raises(InvalidArgument):
        enrol(house, source)
    (job,) = house.store.jobs()
    assert (job.state, job.error) == (JobState.FAILED, "people.tar: is damaged")


def test_an_interruption_gives_the_job_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object, **_named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(house.store, "enrol_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            enrol(house, crowd(5))
    assert [each.state for each in house.store.jobs()] == [JobState.WAITING]
    assert enrol(house, crowd(5))[0].state is JobState.DONE


def test_few_photographs_are_in_memory_however_many_are_looked_at_ahead(house: House) -> None:
    """Each is counted from its arrival, as from a tar, until nothing refers to it."""
    alive: set[int] = set()
    most = 0

    class Content(bytes):
        __slots__ = ()

        def __del__(self) -> None:
            alive.discard(id(self))

    def given(content: bytes) -> bytes:
        return content

    def items() -> Iterator[BulkItem]:
        nonlocal most
        for number in range(200):
            content = Content(photograph(Person(number)))
            alive.add(id(content))
            most = max(most, len(alive))
            yield BulkItem(f"{number}", IdentityDetails(f"{number}"), partial(given, content))
            del content

    class Source:
        def survey(self) -> Survey:
            return Survey(200, "few in memory")

        def items(self) -> Iterator[BulkItem]:
            return items()

    bulk = bulk_of(house)
    source = Source()
    assert sum(len(group) for group in bulk.run(bulk.begin("staff", source.survey()), source)) == 200
    assert 1 < most < 30
