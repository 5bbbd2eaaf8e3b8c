"""The Hugging Face Trainer, on a model of one layer: options, schedules, checkpoints."""

import pytest
import torch

from clients.beside import CLOSE, CLOSE_16, assert_beside, parameters

LENGTH = 6


@pytest.fixture
def transformers(client):
    client("transformers.trainer")
    return client("transformers")


class Sentences(torch.utils.data.Dataset):
    def __init__(self):
        generator = torch.Generator().manual_seed(3)
        self.tokens = torch.randint(16, (16, LENGTH), generator=generator)

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


def model_of(transformers):
    torch.manual_seed(0)
    sizes = {"n_positions": LENGTH, "n_embd": 8, "n_layer": 1, "n_head": 2}
    config = transformers.GPT2Config(
        vocab_size=16, bos_token_id=0, eos_token_id=0, resid_pdrop=0.1, **sizes
    )
    return transformers.GPT2LMHeadModel(config)


def learned(model):
    """The parameters but for attention's biases: that of the keys has a gradient of rounding."""
    kept = zip(model.named_parameters(), parameters(model), strict=True)
    return [value for (name, _), value in kept if not name.endswith("c_attn.bias")]


def train_with(
    transformers, optim, folder, kind="AdamW", schedule=None, given=True, resume=None, **options
):
    """Train; the logged losses, lrs and norms, and the parameters.

    With `given` the Trainer gets the optimizer, and a scheduler of ours; else the class.
    """
    arguments = transformers.TrainingArguments(
        **{"num_train_epochs": 3, "save_strategy": "no", "learning_rate": 0.03, **options},
        output_dir=str(folder / optim.__name__),
        use_cpu=True,
        per_device_train_batch_size=4,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        seed=5,
    )
    model = model_of(transformers)
    kwargs = {"lr": 0.03, **({"weight_decay": 0.1} if kind == "AdamW" else {})}
    if given:
        optimizer = getattr(optim, kind)(model.parameters(), **kwargs)
        scheduler = schedule and schedule(optim.lr_scheduler, optimizer)
        how = {"optimizers": (optimizer, scheduler)}
    else:
        how = {"optimizer_cls_and_kwargs": (getattr(optim, kind), kwargs)}
    trainer = transformers.Trainer(model, arguments, train_dataset=Sentences(), **how)
    trainer.train(resume_from_checkpoint=resume)
    rows = [row for row in trainer.state.log_history if "loss" in row]
    seen = {key: [row[key] for row in rows] for key in ("loss", "learning_rate", "grad_norm")}
    return {**seen, "params": learned(model)}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_clipped_and_accumulated(transformers, tmp_path, bf16, given):
    def train(optim):
        options = {"bf16": bf16, "gradient_accumulation_steps": 2, "max_grad_norm": 0.5}
        return train_with(transformers, optim, tmp_path, given=given, **options)

    seen = assert_beside(train, **(CLOSE_16 if bf16 else CLOSE))
    assert max(seen["grad_norm"]) > 0.5


@pytest.mark.parametrize("kind", ["SGD", "Adagrad", "RMSprop", "Adafactor"])
def test_another_optimizer(transformers, tmp_path, kind):
    def train(optim):
        return train_with(transformers, optim, tmp_path, kind, given=False)

    assert_beside(train, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "cosine_with_restarts", "inverse_sqrt"])
def test_its_own_schedules_on_our_optimizer(transformers, tmp_path, name):
    def train(optim):
        options = {"lr_scheduler_type": name, "warmup_steps": 3, "num_train_epochs": 2}
        return train_with(transformers, optim, tmp_path, **options)

    assert_beside(train)


def sequence(schedulers, optimizer):
    warmup = schedulers.LinearLR(optimizer, 0.1, total_iters=3)
    decay = schedulers.CosineAnnealingLR(optimizer, 9)
    return schedulers.SequentialLR(optimizer, [warmup, decay], [3])


@pytest.mark.parametrize("given", [False, True])
def test_resumed_from_its_own_checkpoint(transformers, tmp_path, given):
    def train(optim):
        def run(folder, **options):
            options |= {"schedule": sequence if given else None, "warmup_steps": 3}
            return train_with(transformers, optim, tmp_path / folder, given=given, **options)

        whole = run("whole")
        run("first", save_strategy="steps", save_steps=5)
        checkpoint = tmp_path / "first" / optim.__name__ / "checkpoint-5"
        second = run("second", resume=str(checkpoint))
        assert second["learning_rate"] == whole["learning_rate"]
        assert second["loss"] == whole["loss"]
        assert all(map(torch.equal, second["params"], whole["params"]))
        return second

    assert_beside(train)


def test_a_schedule_by_the_metric(transformers, tmp_path):
    """The Trainer steps ReduceLROnPlateau after each evaluation."""

    def train(optim):
        model = model_of(transformers)
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / optim.__name__),
            use_cpu=True,
            num_train_epochs=4,
            eval_strategy="epoch",
            save_strategy="no",
            metric_for_best_model="eval_loss",
            report_to="none",
            disable_tqdm=True,
            logging_steps=1,
        )
        optimizer = optim.AdamW(model.parameters(), lr=0.03)
        schedule = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
        data = Sentences()
        trainer = transformers.Trainer(
            model,
            arguments,
            train_dataset=data,
            eval_dataset=data,
            optimizers=(optimizer, schedule),
        )
        trainer.train()
        rows = trainer.state.log_history
        return [row["learning_rate"] for row in rows if "loss" in row], learned(model)

    rates, _ = assert_beside(train)
    assert rates[-1] < 0.03
