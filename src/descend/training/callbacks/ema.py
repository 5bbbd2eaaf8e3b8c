"""EMA: validation, test and prediction with averaged weights."""

from typing import Any

from torch import Tensor, nn

from descend.checks import Range, Switch
from descend.errors import TrainerError
from descend.spelling import spelled
from descend.swa_utils import averaged_model
from descend.training.callbacks.callback import Callback

_DECAY = Range(0, 1, closed=True, hint="a loop of your own takes swa_utils.EMA(model, decay)")


class EMA(Callback):
    r"""Keep an exponential average of the weights, and evaluate with it.

    .. math::
        \bar w_0 = w_0, \quad \bar w_n = d \, \bar w_{n-1} + (1 - d) \, w_n

    with n counting the optimizer's steps. It makes a `descend.swa_utils.EMA` of the module, and
    moves it after each step: the average of 16-bit weights is in float32, buffers are those of the
    module. Validation, test and prediction of that module see the averages in the place of its
    parameters; nothing is copied, and training finds every bit as it left it. Checkpoints hold the
    weights and, in this callback's state, their average.

    Args:
        decay: d, from 0 to 1: it remembers about the last 1 / (1 - d) steps.
        warmup: let d rise to `decay`, so that an average of few steps is not mostly the first.

    Attributes:
        average: a copy of the module with the averaged weights; None before the first training.

    Raises:
        TrainerError: an argument is not allowed; in a training, if the module cannot be copied.

    Example:
        >>> import descend
        >>> ema = descend.EMA(decay=0.99)
        >>> trainer = descend.Trainer(max_epochs=10, callbacks=[ema])

    Source: B. Polyak and A. Juditsky, SIAM J. Control and Optimization 30, 1992.
    """

    @spelled
    def __init__(self, decay: float = 0.999, *, warmup: bool = False) -> None:
        self.decay: float = _DECAY.check("EMA: decay", decay, TrainerError)
        self.warmup: bool = Switch().check("EMA: warmup", warmup, TrainerError)
        self._copy: averaged_model.EMA | None = None
        self._module: Any = None  # whose average it is
        self._loaded: dict[str, Any] = {}  # until there is a copy that takes it
        self._own: list[Tensor] = []  # the module's weights, while it has the averages
        self._steps = 0

    @property
    def average(self) -> nn.Module | None:
        """The module with the averaged weights."""
        if self._copy is None and not (self._loaded and self._module):
            return None
        return self._made().module

    def state_dict(self) -> dict[str, Any]:
        """The averages, and how many models they are of."""
        return self._loaded if self._copy is None else self._copy.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state over; where there is no average yet, once there is.

        Args:
            state: a former `state_dict()`.
        """
        if self._copy is None or not state:
            self._loaded, self._copy = state, None
        else:
            self._copy.load_state_dict(state)

    def follow(self, module: Any, state: dict[str, Any]) -> None:
        """Take the average of a module from the checkpoint that its weights are from.

        Args:
            module: the one that is measured.
            state: a former `state_dict()`; empty where there is none.
        """
        self._module, self._copy, self._loaded = module, None, state

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Begin anew with another module."""
        if self._is_of(module):
            self._module = module
        elif stage == "fit" or self._module is None:
            self._module, self._copy = module, None

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Make the average, while the module holds nothing yet that cannot be copied."""
        self._made()
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: Any, module: Any, *rest: Any) -> None:
        """Move the average, if the optimizer has stepped."""
        if trainer.global_step > self._steps:
            self._made().update_parameters(module)
            self._steps = trainer.global_step

    on_train_epoch_end = on_train_batch_end  # the last step of a stream's epoch comes late

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        """Put the averages in the place of the module's weights."""
        if trainer.training:
            self.on_train_batch_end(trainer, module)
        average = self.average
        if average is None or not self._is_of(module) or not self._made().n_averaged:
            return
        for weight, mean in zip(module.parameters(), average.parameters(), strict=True):
            self._own.append(weight.data)
            weight.data = mean.data.to(weight.device, weight.dtype)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Put the weights back, the very same memory."""
        if self._module is not None and self._own:
            for weight, own in zip(self._module.parameters(), self._own, strict=True):
                weight.data = own
            self._own = []

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Put the weights back."""
        self.on_validation_end(trainer, module)

    def _is_of(self, module: Any) -> bool:
        """Whether these are the weights that are averaged: of the module, or of one around it."""
        own = [] if self._module is None else [*self._module.parameters()]
        return [*map(id, module.parameters())] == [*map(id, own)]

    def _made(self) -> averaged_model.EMA:
        if self._copy is None:
            assert self._module is not None
            try:
                self._copy = averaged_model.EMA(self._module, self.decay, warmup=self.warmup)
            except (TypeError, RuntimeError) as error:  # of deepcopy
                raise TrainerError(
                    f"EMA: {type(self._module).__name__} cannot be copied: {error}; make what it "
                    f"holds beside its layers (files, loaders, results with gradients) elsewhere"
                ) from error
            if self._loaded:
                self._copy.load_state_dict(self._loaded)
                self._loaded = {}
        return self._copy
