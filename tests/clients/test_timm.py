"""timm: its parameter groups, schedules, clipping, scaler, checkpoints and Lookahead."""

import copy

import pytest
import torch

from clients.beside import CLOSE_16, assert_beside, network, parameters, samples


@pytest.fixture
def timm(client):
    pytest.importorskip("torchvision", reason="timm needs torchvision, which goes with one torch")
    for name in ("timm.optim", "timm.scheduler", "timm.utils"):
        client(name)
    return client("timm")


def made(timm, optim, model, kind, **options):
    """`create_optimizer_v2` with a class of torch's or of ours under a name of its own."""
    name = f"{optim.__name__} {kind}".lower()
    info = timm.optim.OptimInfo(
        name=name,
        opt_class=getattr(optim, kind),
        has_eps=kind != "SGD",
        has_momentum=kind == "SGD",
        has_betas=kind == "AdamW",
    )
    registry = timm.optim.OptimizerRegistry()
    registry.register(info)
    return registry.create_optimizer(model, name, lr=0.03, weight_decay=0.1, **options)


def loss_of(model, batch):
    return torch.nn.functional.mse_loss(model(batch[0]).float(), batch[1])


def batches(epochs):
    loader = torch.utils.data.DataLoader(samples(), batch_size=4)
    return [batch for _ in range(epochs) for batch in loader]


@pytest.mark.parametrize("mode", ["norm", "value", "agc"])
@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_clipped_accumulated_and_scheduled(timm, kind, mode):
    def train(optim):
        model = network()
        optimizer = made(timm, optim, model, kind)
        assert len(optimizer.param_groups) == 2  # biases without decay
        schedule = timm.scheduler.CosineLRScheduler(
            optimizer, t_initial=9, warmup_t=3, warmup_lr_init=1e-3, t_in_epochs=False
        )
        seen = []
        for index, batch in enumerate(batches(3), 1):
            loss = loss_of(model, batch)
            loss.backward()
            if index % 2 == 0:
                timm.utils.dispatch_clip_grad(model.parameters(), 0.05, mode=mode)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step_update(index // 2)
            seen.append((loss.item(), *(group["lr"] for group in optimizer.param_groups)))
        return seen, parameters(model)

    assert_beside(train)


def test_layers_with_their_own_scale(timm):
    def train(optim):
        torch.manual_seed(0)
        model = timm.create_model(
            "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=12, depth=2, num_heads=2,
            num_classes=3,
        )  # fmt: skip
        optimizer = made(timm, optim, model, "AdamW", layer_decay=0.5)
        schedule = timm.scheduler.StepLRScheduler(optimizer, 2, decay_rate=0.5)
        images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        seen = []
        for epoch in range(1, 4):
            loss = model(images).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step(epoch)
            seen.append((loss.item(), *(group["lr"] for group in optimizer.param_groups)))
        return seen

    assert_beside(train, rtol=1e-3, atol=1e-5)


def test_its_scaler_in_mixed_precision(timm):
    def train(optim):
        model = network()
        optimizer = made(timm, optim, model, "AdamW")
        scaler = timm.utils.NativeScaler(device="cpu")
        losses = []
        for index, batch in enumerate(batches(3), 1):
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model, batch)
            scaler(
                loss * (float("inf") if index == 6 else 1.0),
                optimizer,
                clip_grad=0.5,
                parameters=model.parameters(),
                need_update=index % 2 == 0,
            )
            if index % 2 == 0:
                optimizer.zero_grad()
            losses.append(loss.item())
        return losses, parameters(model), scaler.state_dict()["scale"]

    assert_beside(train, **CLOSE_16)


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_lookahead_resumed_from_its_own_checkpoint(timm, kind, tmp_path):
    def make(optim):
        model = network()
        momentum = {"momentum": 0.0} if kind == "SGD" else {}
        optimizer = timm.optim.Lookahead(made(timm, optim, model, kind, **momentum), k=3)
        schedule = optim.lr_scheduler.StepLR(optimizer, 5, 0.5)
        return model, optimizer, schedule

    def run(model, optimizer, schedule, some):
        seen = []
        for batch in some:
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            seen.append((loss.item(), *schedule.get_last_lr()))
        return seen

    def train(optim):
        whole = make(optim)
        seen = run(*whole, batches(3))
        first = make(optim)
        begun = run(*first, batches(3)[:8])
        folder = tmp_path / optim.__name__
        folder.mkdir()
        saver = timm.utils.CheckpointSaver(*first[:2], checkpoint_dir=folder, recovery_dir=folder)
        saver.save_checkpoint(0, 1.0)
        second = make(optim)
        path = str(folder / "last.pth.tar")
        timm.models.resume_checkpoint(second[0], path, second[1], log_info=False)
        second[2].load_state_dict(copy.deepcopy(first[2].state_dict()))
        assert begun + run(*second, batches(3)[8:]) == seen
        return seen, parameters(whole[0])

    assert_beside(train)


def test_an_average_of_the_weights(timm):
    def train(optim):
        model = network()
        optimizer = made(timm, optim, model, "AdamW")
        average = timm.utils.ModelEmaV3(model, decay=0.9, use_warmup=True)
        for step, batch in enumerate(batches(2)):
            loss_of(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            average.update(model, step=step)
        return parameters(average.module)

    assert_beside(train)
