"""When a call that failed is made again, and after what pause. Knows neither clocks nor gRPC."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from facedex.client.errors import FacedexError, OverloadedError, UnavailableError


class Repeatable(Enum):
    """What making a call twice does."""

    ALWAYS = auto()
    """The second call changes nothing that the first has not: reading, or writing the same again."""
    IF_UNSEEN = auto()
    """The second call may answer otherwise than the first.

    It is made only where the server refused the first unseen.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a call is made, and how the pauses between the attempts grow.

    The pause before attempt n + 1 is drawn evenly from 0 to `first_pause_seconds` × 2ⁿ⁻¹, at most
    `longest_pause_seconds` ("full jitter", M. Brooker, AWS Architecture Blog, 2015: clients that failed together do not
    come back together). Where the server says how long to wait, that time is added. `draw` gives numbers from 0 to 1.
    """

    attempts: int = 4
    first_pause_seconds: float = 0.2
    longest_pause_seconds: float = 5.0
    draw: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_pause_seconds < 0 or self.longest_pause_seconds < 0:
            raise ValueError(f"a retry policy needs at least one attempt and pauses of 0 seconds or more; got {self}")

    def pause_seconds(self, *, attempt: int, error: FacedexError) -> float:
        """The pause after the attempt of this number, from 1, has failed with the error."""
        longest = min(self.first_pause_seconds * 2.0 ** (attempt - 1), self.longest_pause_seconds)
        return (error.retry_after_seconds or 0.0) + longest * self.draw()


@dataclass(slots=True)
class Attempts:
    """The attempts at one call, which all lie before one deadline in seconds of the caller's clock."""

    policy: RetryPolicy
    repeatable: Repeatable
    deadline: float
    made: int = 0

    def pause_seconds(self, error: FacedexError, *, now: float) -> float:
        """The pause before the next attempt. Raises the error itself where there shall be none."""
        self.made += 1
        pause = self.policy.pause_seconds(attempt=self.made, error=error)
        if self.made >= self.policy.attempts or not self._may_repeat(error) or now + pause >= self.deadline:
            raise error
        return pause

    def _may_repeat(self, error: FacedexError) -> bool:
        if isinstance(error, OverloadedError):
            return True
        return isinstance(error, UnavailableError) and self.repeatable is Repeatable.ALWAYS
