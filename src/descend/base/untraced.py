"""Functions that torch.compile leaves alone."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def never_traced(function: Function) -> Function:
    """Let torch.compile run a function as it is, and all that it calls.

    `torch.compiler.disable` would do, but imports the whole compiler, for seconds, to say so.
    """
    plain: Any = function
    plain._torchdynamo_disable = True
    frames = torch._C._dynamo.eval_frame
    skip = frames._FrameAction.SKIP
    frames.set_code_exec_strategy(plain.__code__, frames._FrameExecStrategy(skip, skip))
    return function
