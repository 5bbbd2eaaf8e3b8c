"""The changes from one step to the next that trainings make, each as it reaches an optimizer.

A network is a list of blocks, each of a weight and what belongs to it. In every change but
`nothing`, each step meets new gradient tensors (`Backward`). A change happens outside of the time:
only what it costs the optimizer, and the schedule where lr is what changes, is measured.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

import torch

from descend.bench.workloads import WORKLOADS, Backward, Workload, parameters

LINEAR = (
    Workload("24 tensors", "a small perceptron", ((64, 64), (64,)) * 12),
    Workload("450 tensors", "a deep, narrow network", WORKLOADS["convnet"].shapes),
)
CONVOLUTIONS = (
    Workload("24 tensors", "3 x 3 convolutions", ((32, 16, 3, 3), (32,)) * 12),
    Workload("450 tensors", "3 x 3 convolutions", ((32, 32, 3, 3), (32,), (32,)) * 150),
)
MANY_GROUPS = (Workload("1,000 groups", "a tensor each", ((16, 16),) * 1000),)
EMBEDDING = (Workload("2,000 rows", "a small embedding", ((2000, 32),)),)
MANY_TENSORS = tuple(
    Workload(f"{count:,} tensors", "small ones", ((8, 8),) * count) for count in (1000, 10_000)
)

EXPERTS, HEADS = 8, 4
"""How many there are, in two thirds and in one third of the blocks."""

DROPPED, PRESENT = 0.2, 0.8
"""The share of the blocks that a stochastic depth leaves out, and that of the gradients at random.
"""

USUAL = ("adamw", "sgd-momentum", "rmsprop")
"""The cases that are measured where no other is asked for."""

TOKENS = 64
"""How many rows of the embedding a batch looks up."""

LAYERS_EVERY, SWAPPED_EVERY = 10, 3
"""After how many steps layers are frozen or unfrozen, and parameters get other memory."""


class Network:
    """A network whose gradients come and go.

    Args:
        workload: The shapes of its parameters; each with more than one dimension begins a block.
        layout: Of the gradients, as for `Backward`.
    """

    def __init__(
        self,
        workload: Workload,
        layout: Callable[[torch.Tensor], torch.Tensor] = torch.clone,
    ) -> None:
        self.parameters = parameters(workload)
        self.backward = Backward(self.parameters, layout)
        self.blocks: list[list[int]] = []
        for number, parameter in enumerate(self.parameters):
            if parameter.dim() > 1:
                self.blocks.append([])
            self.blocks[-1].append(number)
        self.averages = [parameter.detach().clone() for parameter in self.parameters]
        self.random = Random(0)  # noqa: S311 - equal for every contender

    def use(self, blocks: Iterable[Sequence[int]]) -> None:
        """Leave gradients in these blocks alone.

        Args:
            blocks: Some of `blocks`.
        """
        self.backward([number for block in blocks for number in block])

    def parts(self, count: int, share: float) -> tuple[list[list[int]], list[list[list[int]]]]:
        """Divide the blocks into the common ones and equal parts that take turns.

        Args:
            count: How many parts.
            share: About which share of all blocks they have together.
        """
        size = int(len(self.blocks) * share) // count
        common = len(self.blocks) - size * count
        begins = range(common, len(self.blocks), size)
        return self.blocks[:common], [self.blocks[begin : begin + size] for begin in begins]


@dataclass(frozen=True)
class Change:
    """A change from one step to the next.

    Args:
        name: What `descend bench --change` calls it.
        about: What happens, in a few words.
        before: Does it, given the network and the number of the step, counted from 0.
        cycle: After how many steps it has happened as often as it should.
        workloads: Where it is measured.
        layout: Of the gradients, as for `Backward`.
        scheduled: Whether a schedule's step belongs to each step, so that lr changes.
        grouped: Whether each parameter is a group.
        first: Whether each step is the first of a new optimizer.
        only: The cases that it is measured with; none for any.
    """

    name: str
    about: str
    before: Callable[[Network, int], None]
    cycle: int = 1
    workloads: tuple[Workload, ...] = LINEAR
    layout: Callable[[torch.Tensor], torch.Tensor] = torch.clone
    scheduled: bool = False
    grouped: bool = False
    first: bool = False
    only: tuple[str, ...] = ()


def _nothing(network: Network, step: int) -> None:
    """The same gradient tensors, the same lr."""


def _gradients(network: Network, step: int) -> None:
    network.backward()


def _random(network: Network, step: int) -> None:
    count = len(network.parameters)
    network.backward([i for i in range(count) if network.random.random() < PRESENT])


def _experts(network: Network, step: int) -> None:
    common, experts = network.parts(EXPERTS, 2 / 3)
    chosen = network.random.sample(experts, 2)
    network.use([*common, *chosen[0], *chosen[1]])


def _heads(network: Network, step: int) -> None:
    common, heads = network.parts(HEADS, 1 / 3)
    network.use([*common, *heads[step % HEADS]])


def _depth(network: Network, step: int) -> None:
    network.use([block for block in network.blocks if network.random.random() >= DROPPED])


def _alternating(network: Network, step: int) -> None:
    common, losses = network.parts(2, 2 / 3)
    network.use([*common, *losses[step % 2]])


def _frozen(network: Network, step: int) -> None:
    half = len(network.blocks) // 2
    frozen = step // LAYERS_EVERY % 2 == 1
    if step % LAYERS_EVERY == 0:
        for block in network.blocks[:half]:
            for number in block:
                network.parameters[number].requires_grad_(not frozen)
    network.use(network.blocks[half if frozen else 0 :])


def _swapped(network: Network, step: int) -> None:
    if step % SWAPPED_EVERY == 0:
        for number, parameter in enumerate(network.parameters):
            parameter.data, network.averages[number] = network.averages[number], parameter.data
    network.backward()


def _sparse(network: Network, step: int) -> None:
    (embedding,) = network.parameters
    rows = [network.random.randrange(len(embedding)) for _ in range(TOKENS)]
    embedding.grad = torch.sparse_coo_tensor(
        torch.tensor([rows]),
        torch.ones(TOKENS, embedding.shape[1]),
        embedding.shape,
        check_invariants=False,
    )


def _transposed(gradient: torch.Tensor) -> torch.Tensor:
    if gradient.dim() == 1:
        return gradient.clone()
    return gradient.transpose(0, 1).contiguous().transpose(0, 1)


def _channels_last(gradient: torch.Tensor) -> torch.Tensor:
    images = gradient.dim() == 4  # noqa: PLR2004 - channels, channels, height, width
    return gradient.clone(memory_format=torch.channels_last if images else torch.preserve_format)


CHANGES: dict[str, Change] = {
    change.name: change
    for change in (
        Change("nothing", "nothing", _nothing),
        Change("gradients", "new gradient tensors", _gradients),
        Change("lr", "lr", _gradients, scheduled=True),
        Change("random", "a random 80 % have gradients", _random, 10),
        Change("lr-random", "lr, and a random 80 %", _random, 10, scheduled=True),
        Change("experts", "2 of 8 experts are used", _experts, 10),
        Change("heads", "one of 4 heads is used", _heads, HEADS),
        Change("depth", "stochastic depth", _depth, 10),
        Change("alternating", "the loss alternates", _alternating, 2),
        Change("frozen", "layers (un)frozen, each 10th step", _frozen, 2 * LAYERS_EVERY),
        Change("swapped", "param.data swapped, each 3rd step", _swapped, 2 * SWAPPED_EVERY),
        Change("transposed", "transposed gradients", _gradients, layout=_transposed),
        Change(
            "channels-last",
            "channels_last gradients",
            _gradients,
            workloads=CONVOLUTIONS,
            layout=_channels_last,
        ),
        Change(
            "groups",
            "lr of each group",
            _gradients,
            workloads=MANY_GROUPS,
            scheduled=True,
            grouped=True,
        ),
        Change("first-step", "the first step", _gradients, workloads=MANY_TENSORS, first=True),
        Change("sparse", "a sparse embedding (SGD)", _sparse, workloads=EMBEDDING, only=("sgd",)),
    )
}
"""Every change that is measured, by name."""
