"""What a gallery asks of its index beside searches: that it can be examined, kept in good order, and brought up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from facedex.indexer.search.template_index import TemplateIndex

if TYPE_CHECKING:
    from facedex.indexer.search.code_choice import CodeChoice
    from facedex.indexer.search.exact import Block
    from facedex.indexer.search.segment import Rows, Segment
    from facedex.indexer.set_digest import SetDigest


class GalleryIndex(TemplateIndex, Protocol):
    """A `TemplateIndex` that a gallery can tend. Where its rows lie, here or elsewhere, is its own business."""

    @property
    def choice(self) -> CodeChoice:
        """The codes that most templates have, and why."""
        ...

    def aim_at(self, operating_score: float, /) -> None:
        """Searches are made fast for this cosine from now on."""
        ...

    def settle(self) -> None:
        """Returns when all work in the background is done."""
        ...

    def deliver(self) -> bool:
        """Sends what changed to where the rows lie; whether everything has arrived there."""
        ...

    # The erased

    @property
    def holds_codes_of_erased(self) -> bool:
        """Whether anything tells of templates that were erased, though no search returns them."""
        ...

    def forget_erased(self) -> None:
        """Takes out what is left of the erased."""
        ...

    # Examinations

    @property
    def digest(self) -> SetDigest:
        """Of the templates that were added and not erased; ask where nobody changes the index."""
        ...

    def holds(self, template_id: int, /) -> bool:
        """Whether a search may return the template."""
        ...

    def row(self, template_id: int, /) -> Rows | None:
        """The row of a template that a search may return; None where there is none."""
        ...

    def parts(self) -> tuple[Block | Segment, ...]:
        """Every row that a search looks through."""
        ...
