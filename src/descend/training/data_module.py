"""The data of a training, prepared and split in one place."""

from typing import Any

from descend.training.hparams import HasHyperparameters


class DataModule(HasHyperparameters):
    """The loaders of a training, under Lightning's names.

    A `Trainer` calls `prepare_data` (to download), then `setup(stage)` with "fit", "validate",
    "test" or "predict", then the loader's method that it needs, each of which returns a
    DataLoader, or several. All are optional.

    Example:
        >>> class Lines(DataModule):
        ...     def __init__(self, batch_size: int = 4):
        ...         super().__init__()
        ...         self.save_hyperparameters()
        ...     def setup(self, stage):
        ...         self.data = torch.utils.data.TensorDataset(torch.randn(8, 3), torch.randn(8, 1))
        ...     def train_dataloader(self):
        ...         return DataLoader(self.data, batch_size=self.hparams.batch_size, shuffle=True)
        >>> Lines(batch_size=2).hparams
        {'batch_size': 2}

    Source: the interface is that of Lightning's LightningDataModule, https://lightning.ai/docs.
    """

    trainer: Any = None

    def prepare_data(self) -> None:
        """Download and write what is missing: called first."""

    def setup(self, stage: str) -> None:
        """Read and split: called before the loaders are asked for."""

    def train_dataloader(self) -> Any:
        """Return the training batches."""

    def val_dataloader(self) -> Any:
        """Return the batches of the validation, or several loaders."""

    def test_dataloader(self) -> Any:
        """Return the batches of the test, or several loaders."""

    def predict_dataloader(self) -> Any:
        """Return the batches to predict, or several loaders."""

    def teardown(self, stage: str) -> None:
        """Tidy up: called at the end."""
