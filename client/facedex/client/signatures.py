"""Functions made from functions, that tell `help` the text and the parameters of what they were made from."""

import inspect
from collections.abc import Callable
from typing import TypeVar, get_args

Function = TypeVar("Function", bound=Callable[..., object])


def call_described_by(request: Callable[..., object], call: Callable[..., object], function: Function) -> Function:
    """The function with the text and the parameters of the request, and the name and the answer of the call."""
    function.__name__ = call.__name__.removeprefix("_")
    function.__doc__ = request.__doc__
    answer = inspect.signature(call).return_annotation
    function.__dict__["__signature__"] = inspect.signature(request).replace(return_annotation=answer)
    return function


def method_described_by(call: Callable[..., object], method: Function) -> Function:
    """The method with the name, the text and, after `self`, the parameters of a call; it returns the call's answer."""
    method.__name__ = call.__name__
    method.__doc__ = call.__doc__
    signature = inspect.signature(call)
    self_parameter = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    (answer,) = get_args(signature.return_annotation)
    method.__dict__["__signature__"] = signature.replace(
        parameters=[self_parameter, *signature.parameters.values()], return_annotation=answer
    )
    return method
