"""The models whose steps are measured: their shapes, and what `backward` leaves in them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod

import torch


@dataclass(frozen=True)
class Workload:
    """The shapes of one model's parameters.

    Args:
        name: What `descend bench --workload` calls it.
        about: What kind of model has such shapes, in a few words.
        shapes: One shape per parameter tensor.
    """

    name: str
    about: str
    shapes: tuple[tuple[int, ...], ...]

    @property
    def tensors(self) -> int:
        """The number of parameter tensors."""
        return len(self.shapes)

    @property
    def parameters(self) -> int:
        """The number of parameters, all tensors together."""
        return sum(prod(shape) for shape in self.shapes)

    @property
    def nbytes(self) -> int:
        """The bytes that the parameters take in float32, without gradients and states."""
        return 4 * self.parameters


def _mlp() -> tuple[tuple[int, ...], ...]:
    return ((64, 64), (64,), (20, 64), (20,), (10, 20), (10,))


def _convnet() -> tuple[tuple[int, ...], ...]:
    return ((128, 128, 1, 1), (128,), (128,)) * 150


def _transformer(width: int = 256, layers: int = 13) -> tuple[tuple[int, ...], ...]:
    norm = ((width,), (width,))
    attention = ((3 * width, width), (3 * width,), (width, width), (width,))
    feedforward = ((4 * width, width), (4 * width,), (width, 4 * width), (width,))
    embeddings = ((8192, width), (1024, width))
    return embeddings + (norm + attention + norm + feedforward) * layers + norm


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("mlp", "a small perceptron", _mlp()),
        Workload("convnet", "a deep, narrow network", _convnet()),
        Workload("transformer", "a small language model", _transformer()),
        Workload("wide", "three large matrices", ((4096, 3418),) * 3),
    )
}
"""The measured models by name: 6 tensors of 5.7 k, 450 of 2.5 M, 160 of 12.6 M, 3 of 42 M."""


PATTERN = 1 << 16
"""Values and gradients repeat after so many elements: random numbers for all would take long."""


def parameters(workload: Workload) -> list[torch.nn.Parameter]:
    """Build a workload's float32 parameters, each with its gradient set.

    Gradients have magnitudes from 0.5 to 1.5 and alternating signs. None is near zero, so that no
    state becomes subnormal after thousands of steps, which would slow the arithmetic down.

    Args:
        workload: The shapes.

    Returns:
        One leaf per shape, equal in every call with the same workload.
    """
    generator = torch.Generator().manual_seed(0)
    values = torch.empty(PATTERN).uniform_(-1, 1, generator=generator)
    grads = torch.empty(PATTERN).uniform_(0.5, 1.5, generator=generator)
    grads[1::2].neg_()
    built = []
    for shape in workload.shapes:
        parameter = torch.nn.Parameter(_filled(shape, values))
        parameter.grad = _filled(shape, grads)
        built.append(parameter)
    return built


class Backward:
    """Leaves in parameters what `zero_grad` and `backward` leave there, without computing it.

    In every iteration `zero_grad` drops the gradients and `backward` makes new tensors, in whatever
    memory is free by then. So each call here assigns new tensors, and two sets of memory take
    turns: no step meets the tensor objects or the addresses of the step before. It costs the same
    whatever the optimizer, and belongs to a training's backward pass: it is called outside of the
    time. What it leaves to the step, to look at tensors that it has not seen, is inside.

    Args:
        parameters: With their gradients, whose values are those of every step.
        layout: Turns a gradient into one of the same shape in another layout.
    """

    def __init__(
        self,
        parameters: Sequence[torch.Tensor],
        layout: Callable[[torch.Tensor], torch.Tensor] = torch.clone,
    ) -> None:
        self.parameters = parameters
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self._sets = tuple([layout(grad) for grad in grads] for _ in range(2))
        self._turn = 0

    def __call__(self, used: Iterable[int] | None = None) -> None:
        """Replace the gradients.

        Args:
            used: The numbers of the parameters that the loss depends on; the others have no
                gradient then. None for all.
        """
        self._turn = 1 - self._turn
        grads = self._sets[self._turn]
        if used is None:
            for parameter, grad in zip(self.parameters, grads, strict=True):
                parameter.grad = grad.detach()
            return
        for parameter in self.parameters:
            parameter.grad = None
        for i in used:
            self.parameters[i].grad = grads[i].detach()


def _filled(shape: tuple[int, ...], pattern: torch.Tensor) -> torch.Tensor:
    filled = torch.empty(shape)
    flat = filled.view(-1)
    for begin in range(0, flat.numel(), PATTERN):
        part = flat[begin : begin + PATTERN]
        part.copy_(pattern[: part.numel()])
    return filled
