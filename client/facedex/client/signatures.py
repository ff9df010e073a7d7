"""Functions made from functions, that tell `help` the text and the parameters of what they were made from."""

import inspect
from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


def described_by(source: Callable[..., object], function: Function, *, name: str) -> Function:
    """The function with the text and the parameters of the source."""
    return _described(function, name, source, inspect.signature(source))


def method_described_by(source: Callable[..., object], method: Function) -> Function:
    """The method with the name, the text and, after `self`, the parameters of the source."""
    signature = inspect.signature(source)
    self_parameter = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    with_self = signature.replace(parameters=[self_parameter, *signature.parameters.values()])
    return _described(method, source.__name__, source, with_self)


def _described(function: Function, name: str, source: Callable[..., object], signature: inspect.Signature) -> Function:
    function.__name__ = name
    function.__doc__ = source.__doc__
    function.__dict__["__signature__"] = signature
    return function
