"""The loop of every training."""

from contextlib import closing
from typing import TYPE_CHECKING

from descend.training.evaluation import validate_within_fit
from descend.training.loaders import moved
from descend.training.optimization import step_schedulers

if TYPE_CHECKING:
    from descend.training.trainer import Trainer


def fit_loop(trainer: "Trainer") -> None:
    """Train what is left of a run, epoch by epoch and batch by batch.

    `run` gives the batches, counts them, and saves between two of them; `step` is forward pass,
    backward pass and optimizer; `hooks` are the user's. All that has to survive is in the objects
    of the run, among them the trainer's own `state`.
    """
    run, step, hooks, state, metrics = (
        trainer.run, trainer.step, trainer.hooks, trainer.state, trainer.metrics
    )  # fmt: skip
    batch_start, batch_end = hooks.of("on_train_batch_start"), hooks.of("on_train_batch_end")
    configs = trainer.lr_scheduler_configs if trainer.model.automatic_optimization else []
    device = trainer.device

    def end_batches(done: int) -> bool:
        """After an epoch's last batch; of a stream it shows only now, and has its step now."""
        late: bool = step.pending
        if late:
            step.step()
            step_schedulers(configs, "step", done)
        step_schedulers(configs, "epoch", trainer.current_epoch + 1)
        state.epochs = trainer.current_epoch + 1
        return late

    def end_batch(done: int, stepped: bool) -> None:
        """Validate if it is due; a process that goes on does what one before it had only begun."""
        if trainer.is_validation_due(done):
            run.done()
            validate_within_fit(trainer)
            state.validated = run.step
            if trainer.best is not None and not run.ends_epoch:
                run.save()  # it may be the best; at the end of an epoch it is saved anyway
        if configs and stepped:
            step_schedulers(configs, "step", done, metrics.latest)
        trainer.stop_if_asked()

    with closing(run.epochs()) as epochs:  # on an error at once, not when it is forgotten
        for batches in epochs:
            if run.loader.position == 0:
                hooks.call("on_train_epoch_start")
            elif state.validating:
                end_batch(run.loader.position, not step.pending)
            for given in batches:
                index = run.loader.position
                trainer.is_last_batch = last = run.ends_epoch
                metrics.batch = batch = moved(given, device)
                if -1 in [hook(batch, index) for hook in batch_start]:
                    end_batches(index)
                    break
                outputs = step(batch, index, last)
                if configs and not step.pending:
                    step_schedulers(configs, "step", index + 1)
                if last:
                    end_batches(index + 1)
                for hook in batch_end:
                    hook(outputs, batch, index)
                trainer.log_step()
                end_batch(index + 1, not step.pending)
            else:
                if state.epochs <= trainer.current_epoch and not state.stopped:
                    done = run.loader.position
                    end_batch(done, end_batches(done))
            metrics.batch = None
            trainer.end_epoch()
