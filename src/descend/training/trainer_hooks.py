"""The hooks of a training: their names, and who defines which.

Looked up once when a training begins: a hook that nobody defines is an empty tuple, and costs
nothing in a step.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from descend.errors import TrainerError
from descend.spelling import hint
from descend.training.callbacks.callback import Callback
from descend.training.module import Module

PARTS = ("train", "validation", "test", "predict")
HOOKS = frozenset(
    [
        *("setup", "teardown", "on_fit_start", "on_fit_end", "on_exception"),
        *("on_sanity_check_start", "on_sanity_check_end"),
        *(f"on_{part}_{when}" for part in PARTS for when in ("start", "end")),
        *(f"on_{part}_epoch_{when}" for part in PARTS for when in ("start", "end")),
        *(f"on_{part}_batch_{when}" for part in PARTS for when in ("start", "end")),
        *("on_before_zero_grad", "on_before_backward", "on_after_backward"),
        "on_before_optimizer_step",
    ]
)
ELSEWHERE = {
    "on_save_checkpoint": "state_dict, or register_buffer for tensors",
    "on_load_checkpoint": "load_state_dict",
    "on_before_batch_transfer": "the dataset or its collate_fn",
    "on_after_batch_transfer": "the beginning of the step",
    "transfer_batch_to_device": "`to(device)` of a class of your own for the batch",
    "optimizer_step": "a schedule for a warmup, or automatic_optimization = False",
    "optimizer_zero_grad": "automatic_optimization = False",
    "backward": "automatic_optimization = False, with manual_backward",
    "configure_gradient_clipping": "clip_gradients in on_before_optimizer_step",
    "lr_scheduler_step": "a scheduler whose step() takes no argument",
    "configure_model": "the constructor, or setup",
    "configure_sharded_model": "the constructor, or setup",
    "training_epoch_end": "on_train_epoch_end",
    "validation_epoch_end": "on_validation_epoch_end",
    "test_epoch_end": "on_test_epoch_end",
}
"""The hooks that Lightning calls and a Trainer does not, with what to use."""

Hook = Callable[..., Any]


class Hooks:
    """Calls the hooks of one training: `hooks.on_train_start()`; per batch, the tuple of each name.

    Args:
        trainer: passed to the callbacks' hooks.
        module: passed to them too; its own hooks come after theirs.
        callbacks: in the order in which they are called.

    Raises:
        TrainerError: one defines a hook that is never called.
    """

    def __init__(self, trainer: Any, module: Any, callbacks: Iterable[Any]) -> None:
        callbacks = [*callbacks]
        for owner in (*callbacks, module):
            _refuse_unknown(owner)
        self._found: dict[str, tuple[Hook, ...]] = {}
        for name in HOOKS:
            of_module = [getattr(module, name)] if _defines(module, name) else []
            of_callbacks = [(one, partial(getattr(one, name), trainer, module))
                            for one in callbacks if _defines(one, name)]  # fmt: skip
            # What watches a metric decides when the module's own hook has logged it
            last = name == "on_train_epoch_end"
            watching = [hook for one, hook in of_callbacks if last and hasattr(one, "monitor")]
            first = [hook for one, hook in of_callbacks if hook not in watching]
            self._found[name] = (*first, *of_module, *watching)

    def of(self, name: str) -> tuple[Hook, ...]:
        """The hooks of a name, for a loop that calls them in each batch."""
        return self._found[name]

    def call(self, name: str, *arguments: Any) -> None:
        """Call all hooks of a name."""
        for hook in self._found[name]:
            hook(*arguments)


def _defines(owner: Any, name: str) -> bool:
    """Whether the hook is somebody's own, and not the empty one of the base class."""
    if not callable(getattr(owner, name, None)):
        return False
    base = Module if isinstance(owner, Module) else Callback
    return name in vars(owner) or getattr(type(owner), name) is not getattr(base, name, None)


def _refuse_unknown(owner: Any) -> None:
    """Refuse a hook that would never be called: a typing error, or Lightning's and not ours."""
    for name in dir(type(owner)):
        if name in ELSEWHERE:
            raise TrainerError(
                f"{type(owner).__name__}.{name} would never be called; use {ELSEWHERE[name]}"
            )
        if name.startswith("on_") and name not in HOOKS and callable(getattr(owner, name)):
            raise TrainerError(
                f"{type(owner).__name__}.{name} would never be called: there is no such hook; "
                f"{hint(name, HOOKS)}name it otherwise if it is no hook"
            )
