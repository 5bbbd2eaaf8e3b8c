"""torch.amp around the step: GradScaler and autocast, an overflow among the steps."""

import math

import pytest
import torch

from optimizers.cases import IN_TORCH, RICH, TORCH, assert_same_training, counts, ours, tensor


def _model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))


def _train_with_scaler(make, name, *, steps, unscale, clip=None, overflow=(), **options):
    model = _model()
    params = list(model.parameters())
    optimizer = make(params, **RICH[name], **options)
    scaler = torch.amp.GradScaler(device="cpu", init_scale=1024.0, growth_interval=3)
    scales = []
    for seed in range(1, steps + 1):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(tensor(seed, (4, 6), torch.float32)).float().pow(2).mean()
        scaler.scale(loss).backward()
        if seed in overflow:
            params[0].grad[0, 0] = math.inf
        if unscale:
            scaler.unscale_(optimizer)
        if clip:
            torch.nn.utils.clip_grad_norm_(params, clip)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return optimizer, params, scales


FUSED = [(name, {"fused": True}) for name in IN_TORCH if "fused" in ours(name).hyperparameters]
"""Where the step unscales; elsewhere GradScaler has done it. torch's are taken without: its fused
SGD loses an overflow in its first step."""


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in IN_TORCH), *FUSED])
def test_scaled_training_with_an_overflow(backend, name, options, unscale):
    mine, my_params, my_scales = _train_with_scaler(
        ours(name), name, steps=8, unscale=unscale, overflow=(1, 5), **options
    )
    theirs, their_params, their_scales = _train_with_scaler(
        TORCH[name], name, steps=8, unscale=unscale, overflow=(1, 5)
    )
    assert my_scales == their_scales
    # bfloat16 activations turn a last-bit difference of a weight into a bfloat16 rounding.
    assert_same_training(mine, my_params, theirs, their_params, rtol=2e-3, atol=2e-4)
    if counts(name):
        assert mine.state[my_params[0]]["step"].item() == 6


@pytest.mark.parametrize("unscale", [False, True])
def test_scaled_training_is_unscaled_training(backend, unscale):
    """A power of two scales without rounding: the scaled run is the unscaled one."""

    def run(scaled):
        param = torch.nn.Parameter(tensor(0, (9,), torch.float32))
        optimizer = ours("adam")([param], lr=0.1, fused=True)
        scaler = torch.amp.GradScaler(device="cpu", init_scale=1024.0, enabled=scaled)
        for seed in range(1, 6):
            optimizer.zero_grad()
            loss = (param * tensor(seed, (9,), torch.float32)).sum()
            scaler.scale(loss).backward()
            if unscale:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        return optimizer, [param]

    # Unscaled by GradScaler, the very same kernel runs. Unscaled in the step, it has one more
    # factor, and LLVM may fuse other pairs of operations: one rounding of float32 per step.
    tolerance = {"rtol": 0, "atol": 0} if unscale else {"rtol": 5 * 2.0**-23, "atol": 2.0**-23}
    assert_same_training(*run(True), *run(False), **tolerance)


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in IN_TORCH), *FUSED])
def test_clip_norm_sees_the_unscaled_gradient(backend, name, options):
    mine, my_params, _ = _train_with_scaler(
        ours(name), name, steps=5, unscale=False, clip_norm=0.05, **options
    )
    theirs, their_params, _ = _train_with_scaler(
        TORCH[name], name, steps=5, unscale=True, clip=0.05
    )
    # bfloat16 activations turn a last-bit difference of a weight into a bfloat16 rounding.
    assert_same_training(mine, my_params, theirs, their_params, rtol=2e-3, atol=2e-4)


def test_the_scaler_leaves_nothing_behind(backend):
    optimizer, params, _ = _train_with_scaler(ours("adam"), "adam", steps=2, unscale=False)
    assert getattr(optimizer, "grad_scale", None) is None
    assert getattr(optimizer, "found_inf", None) is None
    assert optimizer.state[params[0]]["step"].item() == 2
