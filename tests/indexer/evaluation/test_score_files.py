"""Scores and vectors of other engines: read where they are clear, refused in one sentence where they are not."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from tests.indexer.calibration.populations import unrelated

from facedex.indexer.calibration.errors import ScoresInvalid
from facedex.indexer.calibration.scores import NOBODY, UNRANKED, Searches, searches_of, searches_of_gallery
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.score_files import FileSearches, read_embeddings, read_scores

Table = dict[str, list[Any]]

SCORES: Table = {
    "kind": ["non_mated", "mated", "non_mated", "mated", "non_mated"],
    "score": [0.31, 0.72, 0.28, None, None],
    "rank": [None, 1, None, None, None],
    "probe_identity": ["zoe", "anna", "yves", "ben", "xara"],
    "nearest_identity": ["anna", "anna", "ben", None, None],
    "gallery_templates": [200, 200, 200, 200, 200],
}


def written(folder: Path, ending: str, table: Table) -> Path:
    path = folder / f"table{ending}"
    if ending == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([list(table), *zip(*table.values(), strict=True)])
    elif ending == ".parquet":
        pq.write_table(pa.table(table), path)
    else:
        arrays: dict[str, Any] = {name: plain(values) for name, values in table.items()}
        np.savez(path, **arrays)
    return path


def plain(values: list[Any]) -> NDArray[Any]:
    """An array without objects: what is missing is an empty text, or NaN."""
    is_text = any(isinstance(value, str) for value in values)
    return np.array([("" if is_text else np.nan) if value is None else value for value in values])


def with_column(name: str, values: list[Any]) -> Table:
    return {**SCORES, name: values}


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".npz"])
def test_searches_are_read_from_each_format_alike(tmp_path: Path, ending: str) -> None:
    found = read_scores(written(tmp_path, ending, SCORES))
    non_mated, mated = found.searches.non_mated, found.searches.mated
    assert non_mated.top_scores.tolist() == [0.31, 0.28, -np.inf]
    assert mated.mate_scores.tolist() == [0.72, -np.inf]
    assert mated.mate_ranks.tolist() == [1, UNRANKED]
    assert non_mated.gallery_templates == 200
    assert [found.labels.name(number) for number in non_mated.nearest_identities.tolist()[:2]] == ["anna", "ben"]
    assert non_mated.nearest_identities[2] == NOBODY
    assert (found.failures, found.identities, found.photographs) == (2, 5, 5)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({name: SCORES[name] for name in SCORES if name != "rank"}, "has no column rank; it has .*kind"),
        (with_column("kind", ["impostor"] * 5), "column kind holds 'impostor'; write mated or non_mated"),
        (with_column("score", [31.0, 72.0, 28.0, None, None]), "column score holds 72; .* divide by the largest"),
        (with_column("score", ["high", 0.7, 0.2, None, None]), "column score holds something that is no number"),
        (with_column("rank", [None] * 5), "column rank is empty in a mated row"),
        (with_column("probe_identity", [None, "anna", "yves", "ben", "xara"]), "column probe_identity is empty"),
        (with_column("nearest_identity", [None] * 5), "column nearest_identity is empty in a non-mated row"),
        (with_column("gallery_templates", [200, 200, 0, 200, 200]), "gallery_templates is empty or below 1"),
        ({name: [] for name in SCORES}, "holds no row"),
    ],
)
def test_a_table_that_is_not_clear_is_refused_by_its_column(tmp_path: Path, table: Table, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        read_scores(written(tmp_path, ".csv", table))


def test_a_non_mated_search_that_finds_the_probe_itself_is_refused(tmp_path: Path) -> None:
    table = with_column("nearest_identity", ["zoe", "anna", "ben", None, None])
    with pytest.raises(ScoresInvalid, match="such a search is mated"):
        read_scores(written(tmp_path, ".csv", table))


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".npz"])
def test_a_file_that_is_not_what_its_ending_says_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"broken{ending}"
    path.write_bytes(b"\xff\xfe\x00\x01 no table at all")
    with pytest.raises(InvalidArgument, match="is no "):
        read_scores(path)


def test_a_single_array_is_no_npz_file(tmp_path: Path) -> None:
    np.save(tmp_path / "scores.npy", np.arange(3))
    (tmp_path / "scores.npy").rename(tmp_path / "scores.npz")
    with pytest.raises(InvalidArgument, match="is no NPZ file"):
        read_scores(tmp_path / "scores.npz")


def test_an_unknown_ending_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"give a \.csv, \.parquet or \.npz"):
        read_scores(tmp_path / "scores.pkl")
    with pytest.raises(InvalidArgument, match="there is no such file"):
        read_scores(tmp_path / "scores.csv")


class Spy:
    """An object that tells when a pickle of it is opened."""

    opened = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (Spy, "opened", True))


def test_nothing_pickled_is_ever_opened(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    np.savez(path, allow_pickle=True, kind=np.array([Spy()], dtype=object))
    with pytest.raises(InvalidArgument, match="pickled objects are not read"):
        read_scores(path)
    assert not Spy.opened


VECTORS = unrelated(np.random.default_rng(0), 12)
PEOPLE = np.array([0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9])
ENROLLED = np.array([True, False, True, True, False, True, True, False, False, False, False, False])


def embeddings(*, scale: float = 1.0) -> Table:
    return {
        "vectors": list(scale * VECTORS),
        "identities": [f"person_{number}" for number in PEOPLE],
        "role": np.where(ENROLLED, "enrolled", "probe").tolist(),
    }


def same_scores(found: FileSearches, expected: Searches) -> None:
    np.testing.assert_allclose(found.searches.non_mated.top_scores, expected.non_mated.top_scores, atol=1e-6)
    np.testing.assert_allclose(found.searches.mated.mate_scores, expected.mated.mate_scores, atol=1e-6)


@pytest.mark.parametrize("ending", [".parquet", ".npz"])
def test_vectors_are_searched_as_a_gallery_and_its_probes(tmp_path: Path, ending: str) -> None:
    found = read_embeddings(written(tmp_path, ending, embeddings()))
    expected = searches_of(VECTORS[ENROLLED], PEOPLE[ENROLLED], VECTORS[~ENROLLED], PEOPLE[~ENROLLED])
    same_scores(found, expected)
    assert (found.identities, found.photographs, found.templates_per_identity) == (10, 12, 1.0)


def test_vectors_of_any_length_are_compared_by_their_cosine(tmp_path: Path) -> None:
    plain_vectors = read_embeddings(written(tmp_path, ".npz", embeddings()))
    same_scores(read_embeddings(written(tmp_path, ".npz", embeddings(scale=7))), plain_vectors.searches)


def test_vectors_without_roles_are_each_searched_among_everybody_elses(tmp_path: Path) -> None:
    table = {name: values for name, values in embeddings().items() if name != "role"}
    found = read_embeddings(written(tmp_path, ".npz", table))
    same_scores(found, searches_of_gallery(VECTORS, PEOPLE))


@pytest.mark.parametrize(
    ("name", "values", "problem"),
    [
        ("vectors", [[0.0] * 4] * 12, "a row of zeros, NaN or infinity"),
        ("vectors", [[np.nan] * 4] * 12, "a row of zeros, NaN or infinity"),
        ("vectors", [0.5] * 12, "no rows of numbers of one length"),
        ("role", ["friend"] * 12, "column role holds 'friend'; write enrolled or probe"),
        ("role", ["probe"] * 12, "enrols nobody"),
        ("identities", ["anna"], "columns of different lengths"),
    ],
)
def test_vectors_that_cannot_be_compared_are_refused(
    tmp_path: Path, name: str, values: list[Any], problem: str
) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        read_embeddings(written(tmp_path, ".npz", {**embeddings(), name: values}))


def test_lists_of_unequal_length_are_no_vectors(tmp_path: Path) -> None:
    table: Table = {"vectors": [[1.0, 0.0], [1.0]], "identities": ["anna", "ben"]}
    with pytest.raises(InvalidArgument, match="no rows of numbers of one length"):
        read_embeddings(written(tmp_path, ".parquet", table))


def test_the_digest_is_of_the_file(tmp_path: Path) -> None:
    first = read_scores(written(tmp_path, ".csv", SCORES)).digest
    other = read_scores(written(tmp_path, ".csv", with_column("score", [0.3, 0.72, 0.28, None, None]))).digest
    assert first != other
