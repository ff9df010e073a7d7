"""Self-calibration: which codes a gallery gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facedex.indexer.search.code_fit import CodeFit, measured_fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from facedex.indexer.search.codebook import Codebook

# Nanoseconds, measured (docs/decisions/0006): to scan a row, in all and by byte of its code; to score one row here and
# there exactly; and to score a row exactly in a pass over all of them. Only their ratios matter.
SCAN_NS, SCAN_NS_PER_BYTE, LOOK_NS, PASS_NS = 0.5, 0.03, 330.0, 130.0


@dataclass(frozen=True, slots=True)
class CodeChoice:
    """The codes of a segment and how they fit, or None for no codes: every row is scored in each search.

    `engine` names what searches instead of codes here.
    """

    codebook: Codebook | None
    fit: CodeFit | None
    operating_score: float
    engine: str = ""

    @property
    def bits_per_component(self) -> float:
        """Of the codes; 0 for none."""
        return 0.0 if self.codebook is None else 8 * self.codebook.code_bytes / self.codebook.dimension

    @property
    def share_looked_at(self) -> float:
        """Share of the rows that a search at the operating score has to score exactly, as the fit foretells."""
        return 1.0 if self.fit is None else self.fit.share_reaching(self.operating_score)

    @property
    def row_ns(self) -> float:
        """Foretold nanoseconds a row of the gallery."""
        if self.codebook is None:
            return PASS_NS
        return SCAN_NS + SCAN_NS_PER_BYTE * self.codebook.code_bytes + LOOK_NS * self.share_looked_at

    @property
    def reason(self) -> str:
        """For people."""
        if self.engine:
            return f"searched by {self.engine}; its answers are scored exactly here"
        if self.fit is None:
            return (
                "exact: the gallery is small, or no codes lose fewer than 1 mate in 10 000 "
                f"at cosine {self.operating_score:.2f} and save time"
            )
        return (
            f"{self.bits_per_component:g} bit a component: at cosine {self.operating_score:.2f} "
            f"{self.share_looked_at:.2%} of the templates are compared exactly; "
            f"{self.fit.missed} of {self.fit.checked} planted mates were missed"
        )


def chosen_codes(
    vectors: NDArray[np.floating[Any]], candidates: Sequence[Codebook], *, operating_score: float
) -> CodeChoice:
    """The cheapest codes that lose fewer than 1e-4 of the mates at the operating score; no codes where none does.

    The loss is kept by how many rows are scored exactly after the scan, so shorter codes pay only where the operating
    score stands clear of other people's scores.
    """
    fits = [measured_fit(vectors, each, mate_cosine=operating_score) for each in candidates]
    return cheapest([CodeChoice(book, fit, operating_score) for book, fit in zip(candidates, fits, strict=True)])


def cheapest(candidates: Sequence[CodeChoice]) -> CodeChoice:
    """The fastest of those that keep the target, or no codes."""
    kept = [each for each in candidates if each.fit is not None and each.fit.keeps_target]
    exact = CodeChoice(None, None, candidates[0].operating_score)
    return min([*kept, exact], key=lambda choice: choice.row_ns)
