"""Functions that torch.compile leaves alone."""

from typing import Any

import torch


def never_traced(function: Any) -> None:
    """Let torch.compile run a function as it is, and all that it calls.

    `torch.compiler.disable` would do, but imports the whole compiler, for seconds, to say so.
    """
    function._torchdynamo_disable = True
    frames = torch._C._dynamo.eval_frame
    if hasattr(frames, "set_code_exec_strategy"):
        skip = frames._FrameAction.SKIP
        frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))
    else:  # before torch 2.8: not what it calls
        frames.skip_code(function.__code__)  # type: ignore[attr-defined]
