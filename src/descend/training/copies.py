"""Training on the side: on copies, with what cannot be copied put back as it was."""

import copy
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from descend.errors import TrainerError
from descend.run.batch_order import mixed
from descend.run.generators import held_generators
from descend.run.loader import refusal
from descend.run.seeding import sources
from descend.training.loaders import training_loader
from descend.user_file import describe


def copied(*things: Any) -> Any:
    """Copies of a model and of what belongs to it, which share nothing with the originals.

    Raises:
        TrainerError: something in them cannot be copied.
    """
    shared: dict[int, Any] = {}
    for module in (
        one for thing in things if isinstance(thing, nn.Module) for one in thing.modules()
    ):
        for value in vars(module).values():  # such as a weight that a hook makes of two others
            if isinstance(value, Tensor) and value.grad_fn is not None:
                shared[id(value)] = value.detach().clone()
    try:
        model, *others = copy.deepcopy(things, shared)
    except Exception as error:  # whatever a __deepcopy__ or __reduce_ex__ raises
        raise TrainerError(
            f"lr_find trains copies, and the {type(things[0]).__name__} or its loss cannot be "
            f"copied ({describe(error)}); let them hold no open files, locks or iterators"
        ) from error
    if not model.training:
        model.train()
    return model, *others


def batches_on_the_side(loader: Any, seed: int) -> Generator[Any, None, None]:
    """The batches of a loader, epoch after epoch without end, in an order that the seed says."""
    if refusal(loader) and not isinstance(loader, list | tuple):
        try:
            loader = copy.deepcopy(loader)
        except Exception as error:
            raise TrainerError(
                f"lr_find leaves the loader where it stands, and a {type(loader).__name__} can "
                f"only be read as a copy, which cannot be made ({describe(error)}); give a "
                f"DataLoader of a map-style dataset, or a list of batches, or open files in "
                f"__iter__"
            ) from error
    epochs = training_loader(loader, seed, 1.0)
    while True:
        number = 0
        for number, batch in enumerate(epochs, 1):  # noqa: B007 - looked at below
            yield batch
        if number == 0:
            raise TrainerError("lr_find: the loader gives no batches")


@contextmanager
def generators_kept(*things: object) -> Iterator[Callable[[int], None]]:
    """A function that seeds all random generators; at the end they stand where they stood."""
    kept = [(source, source.state()) for source in sources(*held_generators(*things))]

    def seed_all(order: int) -> None:
        for source, _ in kept:
            source.seed(mixed(order, 0, "lr_find"))

    try:
        yield seed_all
    finally:
        for source, state in kept:
            source.put(state)


@contextmanager
def gradients_refused(model: nn.Module) -> Iterator[None]:
    """Let no gradient reach the original, such as from a loss that closes over it."""

    def refuse(grad: Tensor) -> None:
        raise TrainerError(
            "lr_find: the loss uses the model itself and not what it is given, so that its "
            "gradient is not the copy's; let it need no more than (outputs, targets), or make it a "
            "method of the model"
        )

    before = [(one, one._backward_hooks) for one in model.parameters() if one.requires_grad]
    handles = [one.register_hook(refuse) for one, _ in before]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for handle, (parameter, hooks) in zip(handles, before, strict=True):
            handle.remove()
            parameter._backward_hooks = hooks
