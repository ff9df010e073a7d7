"""The gate that every call passes: who calls, whether they may, and how often."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from facedex.server.access import Caller, Rule
from facedex.server.admission import HEALTH
from facedex.server.meter import RateExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    import grpc

    from facedex.server.key_ring import KeyRing
    from facedex.server.meter import Meter

AUTHORIZATION = "authorization"
NOBODY = Rule(frozenset())
EVERYBODY = Rule(frozenset())
# A stream that is too fast is slowed down; it looks so often whether it still goes on.
LOOK_SECONDS = 0.25


class Gate:
    """Lets in who may come in, by one table of rules. Health is answered to everybody, and a method without a rule to no key."""

    def __init__(self, keys: KeyRing, meter: Meter, rules: Mapping[str, Rule]) -> None:
        self._keys = keys
        self._meter = meter
        self._rules = rules
        self._callers: dict[grpc.ServicerContext, Caller] = {}

    def caller(self, method: str, context: grpc.ServicerContext) -> Caller:
        """Who calls. Raises NotKnown, StoreUnavailable."""
        return Caller() if method.startswith(HEALTH) else self._keys.caller(_authorization(context))

    def known_caller(self, context: grpc.ServicerContext) -> Caller | None:
        """Who calls, as far as that is known without asking the database."""
        return self._keys.known_caller(_authorization(context))

    def admit(self, method: str, caller: Caller) -> None:
        """Whether the caller may use this method at all; before anything is read of the request. Raises RoleMissing."""
        caller.require_role(self._rule(method).roles)

    def check(self, method: str, caller: Caller, request: Any) -> None:
        """Whether the caller may make this request. Raises AccessDenied."""
        self._rule(method).check(caller, request)

    def charge(self, caller: Caller) -> None:
        """Counts a call. Raises TooOften."""
        if caller.key is not None:
            self._meter.charge(caller.key)

    def charge_slowly(self, caller: Caller, *, goes_on: Callable[[], bool]) -> None:
        """Counts a message of a stream, and waits where there are too many a second. Raises QuotaSpent."""
        while True:
            try:
                return self.charge(caller)
            except RateExceeded as error:
                if not goes_on():
                    raise
                time.sleep(min(LOOK_SECONDS, error.retry_after_seconds))

    @contextmanager
    def open_for(self, caller: Caller, context: grpc.ServicerContext) -> Generator[None]:
        """Inside this block, `caller_of` knows who called."""
        self._callers[context] = caller
        try:
            yield
        finally:
            del self._callers[context]

    def caller_of(self, context: grpc.ServicerContext) -> Caller:
        """Who made the call that is being answered."""
        return self._callers[context]

    def _rule(self, method: str) -> Rule:
        if method.startswith(HEALTH):
            return EVERYBODY
        return self._rules.get(method, NOBODY)


def _authorization(context: grpc.ServicerContext) -> str | None:
    for name, value in context.invocation_metadata() or ():
        if name == AUTHORIZATION:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return None
