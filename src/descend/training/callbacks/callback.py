"""Callback: code of one's own at the instants of a training."""

from typing import Any


class Callback:
    """The base class of what a trainer calls at its instants, by the names of Lightning.

    A subclass defines the hooks that it needs; those that it does not are never called. One that
    has a state gives it as `state_dict`, of tensors and plain values, and takes it back in
    `load_state_dict`, before `on_train_start`: it resumes with the run, to the bit.

    Args:
        trainer: given to each hook: the `descend.Trainer`.
        module: the module that it trains.
        stage: "fit", "validate", "test" or "predict".
        batch: what the loader gave, on the device of the module.
        batch_idx: its number in the epoch, from 0.
        outputs: what the step of the module gave for it.
        dataloader_idx: the number of the loader, where there are several.

    Example:
        >>> import descend
        >>> class Announce(descend.Callback):
        ...     def on_train_start(self, trainer, module):
        ...         print("Training is started!")
        >>> Announce().on_train_start(None, None)
        Training is started!

    Source: the names, the arguments and the order of PyTorch Lightning's callbacks.
    """

    @property
    def state_key(self) -> str:
        """The name of its state in a checkpoint; two of one class need each their own."""
        return type(self).__name__

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state over.

        Args:
            state: a former `state_dict()`.
        """

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Before anything else of a stage."""

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """After everything else of a stage."""

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """When `fit` begins, once the model is on its device."""

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        """When `fit` ends."""

    def on_sanity_check_start(self, trainer: Any, module: Any) -> None:
        """Before the few validation batches that are tried first."""

    def on_sanity_check_end(self, trainer: Any, module: Any) -> None:
        """After them."""

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Before the first epoch of this process."""

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """After the last epoch."""

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Before an epoch."""

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """After an epoch, and after the validation at its end."""

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Before a batch of an epoch."""

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After its step."""

    def on_before_zero_grad(self, trainer: Any, module: Any, optimizer: Any) -> None:
        """Before the gradients are zeroed."""

    def on_before_backward(self, trainer: Any, module: Any, loss: Any) -> None:
        """Before the backward pass."""

    def on_after_backward(self, trainer: Any, module: Any) -> None:
        """After the backward pass."""

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        """Before a step of an optimizer, after gradients are unscaled, before they are clipped."""

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """When something is raised, Ctrl-C too."""

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        """Before a validation, a test, a prediction."""

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """After a validation, a test, a prediction."""

    def on_validation_epoch_start(self, trainer: Any, module: Any) -> None:
        """Before the first of its batches."""

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        """After the last of its batches."""

    def on_validation_batch_start(
        self, trainer: Any, module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Before one of its batches."""

    def on_validation_batch_end(
        self,
        trainer: Any,
        module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """After one of its batches."""

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end
    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_predict_epoch_end = on_validation_epoch_end
    on_test_batch_start = on_predict_batch_start = on_validation_batch_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
