"""LFW's protocol of pairs, held against figures that were worked out directly."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from tests.indexer.evaluation.scripted_people import Terminal, make_files

from facedex.indexer.calibration.errors import CalibrationError
from facedex.indexer.calibration.scores import PairScores
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.evaluation import Faces
from facedex.indexer.evaluation.pairs import Pair, area_under_roc, evaluate_pairs, photographs_in, read_pairs
from facedex.indexer.jobs.folder import Photograph

FOLDS, PAIRS_PER_KIND = 4, 6
TWO_FOLDS = "2\t1\nAnna_Lee\t1\t2\nAnna_Lee\t1\tBen\t1\nBen\t1\t2\nBen\t2\tAnna_Lee\t2\n"


def listed(folder: Path, text: str) -> Path:
    """A pairs.txt beside photographs 1 and 2 of Anna_Lee and Ben."""
    make_files(folder, {f"{name}/{name}_{take:04}.jpg": b"" for name in ("Anna_Lee", "Ben") for take in (1, 2)})
    (folder / "pairs.txt").write_text(text)
    return folder / "pairs.txt"


def test_lines_are_mated_and_non_mated_pairs_fold_by_fold(tmp_path: Path) -> None:
    pairs = read_pairs(listed(tmp_path, TWO_FOLDS), people=tmp_path)
    assert [(pair.fold, pair.is_mated) for pair in pairs] == [(0, True), (0, False), (1, True), (1, False)]
    assert pairs[3].first == Photograph("Ben", tmp_path / "Ben" / "Ben_0002.jpg")
    assert len(photographs_in(pairs)) == 4


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1 must be"),
        ("300\n", "line 1 must be"),
        ("2 1\nBen 1 2\n", "holds 1 pairs"),
        (TWO_FOLDS.replace("Ben\t1\t2", "Ben 1"), "line 4 is no pair"),
        (TWO_FOLDS.replace("Ben\t1\t2", "Ben 1 7"), "line 4 names .*Ben_0007, which is not there"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_with_its_line(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        read_pairs(listed(tmp_path, text), people=tmp_path)


def made_up(seed: int) -> tuple[list[Pair], Faces]:
    """Pairs in folds over photographs whose vectors are near their person's."""
    rng = np.random.default_rng(seed)
    people = rng.standard_normal((8, 4))
    photographs = {
        (who, take): Photograph(f"p{who}", Path(f"p{who}_{take}.jpg")) for who in range(8) for take in range(3)
    }
    vectors = {}
    for (who, _), photograph in photographs.items():
        vector = people[who] + 0.8 * rng.standard_normal(4)
        vectors[photograph] = (vector / np.linalg.norm(vector)).astype(np.float32)

    def pair(fold: int, *, mated: bool) -> Pair:
        first, second = rng.choice(8, 2, replace=False)
        takes = rng.choice(3, 2, replace=False)
        return Pair(fold, photographs[first, takes[0]], photographs[first if mated else second, takes[1]])

    kinds = product(range(FOLDS), (True, False), range(PAIRS_PER_KIND))
    return [pair(fold, mated=mated) for fold, mated, _ in kinds], Faces(vectors, ())


def direct_accuracies(scores: list[float], mated: list[bool], folds: list[int]) -> list[set[float]]:
    """By trying every threshold: for each fold, the accuracies that thresholds which are best on the others give."""

    def accuracy(rows: list[int], threshold: float) -> float:
        return sum((scores[row] >= threshold) == mated[row] for row in rows) / len(rows)

    outcomes: list[set[float]] = []
    for fold in range(FOLDS):
        own = [row for row in range(len(scores)) if folds[row] == fold]
        others = [row for row in range(len(scores)) if folds[row] != fold]
        tried = {scores[row]: accuracy(others, scores[row]) for row in others} | {2.0: accuracy(others, 2.0)}
        best = max(tried.values())
        outcomes.append({accuracy(own, threshold) for threshold, value in tried.items() if value == best})
    return outcomes


@pytest.mark.parametrize("seed", range(5))
def test_the_figures_are_those_of_a_direct_computation(seed: int) -> None:
    pairs, faces = made_up(seed)
    evaluation = evaluate_pairs(pairs, faces)
    scores = [float(faces.vectors[pair.first] @ faces.vectors[pair.second]) for pair in pairs]
    mated = [pair.is_mated for pair in pairs]
    possible = product(*direct_accuracies(scores, mated, [pair.fold for pair in pairs]))
    expected = [(np.mean(chosen), np.std(chosen, ddof=1)) for chosen in possible]
    measured = (evaluation.accuracy, evaluation.standard_deviation)
    assert any(np.allclose(measured, each, atol=1e-9) for each in expected)

    highest_non_mated = max(score for score, same in zip(scores, mated, strict=True) if not same)
    accepted = [score > highest_non_mated for score, same in zip(scores, mated, strict=True) if same]
    assert evaluation.tar == pytest.approx(np.mean(accepted), abs=1e-9)

    wins = [
        (mate > other) + 0.5 * (mate == other)
        for mate, other in product(
            *([s for s, m in zip(scores, mated, strict=True) if m is kind] for kind in (True, False))
        )
    ]
    assert evaluation.area == pytest.approx(np.mean(wins), abs=1e-9)


def test_equal_scores_count_half_in_the_area() -> None:
    assert area_under_roc(PairScores(np.array([0.5, 0.9]), np.array([0.5, 0.1]))) == pytest.approx(0.875)


def test_a_pair_without_a_face_is_no_match() -> None:
    pairs, faces = made_up(0)
    lost = pairs[0].first
    kept = {photograph: vector for photograph, vector in faces.vectors.items() if photograph != lost}
    evaluation = evaluate_pairs(pairs, Faces(kept, ()))
    assert evaluation.failed == sum(lost in {pair.first, pair.second} for pair in pairs) > 0
    assert evaluation.tar <= evaluate_pairs(pairs, faces).tar


def test_one_fold_cannot_choose_a_threshold_on_others() -> None:
    pairs, faces = made_up(0)
    with pytest.raises(CalibrationError, match="folds"):
        evaluate_pairs([pair for pair in pairs if pair.fold == 0], faces)


def test_the_evaluate_command_runs_the_protocol_of_pairs(people: Path, tmp_path: Path) -> None:
    names = {"Anna_Lee": "person_001", "Ben": "person_002"}
    for name, person in names.items():
        photographs = {f"{name}/{name}_{t:04}.jpg": (people / person / f"{t}.jpg").read_bytes() for t in (1, 2)}
        make_files(tmp_path / "people", photographs)
    (tmp_path / "pairs.txt").write_text(TWO_FOLDS)
    words = ("evaluate", tmp_path / "people", "--pairs", tmp_path / "pairs.txt", "--json", tmp_path / "figures.json")
    result = Terminal(tmp_path).types(*words)
    assert result.exit_code == 0, result.stderr
    assert "true accept rate at FAR 0.001" in result.stdout
    document = json.loads((tmp_path / "figures.json").read_text())
    assert (document["pairs"], document["failed"], document["area"]) == (4, 0, 1.0)


def test_a_missing_list_is_one_line_and_exit_code_1(people: Path, tmp_path: Path) -> None:
    result = Terminal(tmp_path).types("evaluate", people, "--pairs", tmp_path / "nowhere.txt")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
