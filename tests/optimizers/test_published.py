"""Optimizers that torch lacks, beside an implementation that others published."""

import pytest
import torch

import descend
from optimizers.cases import tensor

published = pytest.importorskip("pytorch_optimizer")

SHAPE, STEPS = (33, 7), 200
WARMED = {"alpha": 5.0, "weight_decay": 0.1}


def _later(count):
    """ADOPT's limit as its authors count the steps: without the one that moves nothing."""
    return (count - 1) ** 0.25


ADOPT = {"clip_lambda": _later}
CASES = {
    "ademamix": ("AdEMAMix", {}, {"alpha": 2.0}),
    "ademamix in its warmups": (
        "AdEMAMix",
        {**WARMED, "alpha_warmup": 150, "beta3_warmup": 150},
        {**WARMED, "t_alpha_beta3": 150, "weight_decouple": True},
    ),
    "adopt": ("ADOPT", {}, ADOPT),
    "adopt, not clipped": ("ADOPT", {"clip_exponent": None}, {"clip_lambda": None}),
    # Theirs divides eps too by the correction of the mean square, and adds 1e-15 to that square.
    "mars": ("MARS", {"eps": 0.0}, {"eps": 0.0, "optimize_1d": True}),
    "mars with decay": (
        "MARS",
        {"eps": 0.0, "weight_decay": 0.1, "gamma": 0.1},
        {"eps": 0.0, "weight_decay": 0.1, "gamma": 0.1, "optimize_1d": True},
    ),
    "stableadamw": ("StableAdamW", {}, {}),
    "adopt with decay": ("ADOPT", {"weight_decay": 0.1}, {**ADOPT, "weight_decay": 0.1}),
}


@pytest.mark.parametrize(
    ("dtype", "close"),
    # float32: 200 steps of about 5 roundings of 6e-8, which mostly cancel
    [(torch.float64, 1e-12), (torch.float32, 2e-5)],
    ids=["float64", "float32"],
)
@pytest.mark.parametrize("case", CASES)
def test_200_steps_are_those_of_pytorch_optimizer(case, dtype, close):
    name, mine, theirs = CASES[case]
    if name == "MARS":  # a gradient of 1e-5 times the norm makes 1e-5 of a step of 0.01
        close = max(close, 1e-6)

    def trained(module, options):
        param = torch.nn.Parameter(tensor(0, SHAPE, dtype))
        optimizer = getattr(module, name)([param], lr=0.01, **options)
        for seed in range(1, STEPS + 1):
            param.grad = tensor(seed, SHAPE, dtype) + 0.3 * param.detach()
            optimizer.step()
        return param.detach()

    torch.testing.assert_close(
        trained(descend, mine), trained(published, theirs), rtol=close, atol=close
    )


# No side longer than the gradient has columns: its eigenvalues would be 0, and their vectors any.
# Theirs refreshes in float32, to 6e-8, by which a step in that basis is off: it is about lr.
SOAP = {
    "soap": ((7, 7), {}, {}),
    "soap refreshed in every step": (
        (7, 7),
        {"precondition_frequency": 1, "shampoo_beta": 0.8},
        {"precondition_frequency": 1, "shampoo_beta": 0.8},
    ),
    "soap of four dimensions": ((4, 3, 2, 3), {"eps": 1e-3}, {"eps": 1e-3}),
    "soap, merged": (
        (4, 3, 2, 6),
        {"merge_dims": True, "max_precond_dim": 12},
        {"merge_dims": True, "max_precondition_dim": 12},
    ),
    "soap of one side": ((9, 4), {"max_precond_dim": 8}, {"max_precondition_dim": 8}),
    "soap, normalized": ((7, 7), {"normalize_grads": True}, {"normalize_gradient": True}),
    "soap, uncorrected": ((7, 7), {"correct_bias": False}, {"correct_bias": False}),
    "soap, never refreshed": (
        (7, 7),
        {"precondition_frequency": 1000, "betas": (0.9, 0.8)},
        {"precondition_frequency": 1000, "betas": (0.9, 0.8)},
    ),
}


@pytest.mark.parametrize("case", SOAP)
def test_200_steps_of_soap_are_those_of_pytorch_optimizer(case):
    shape, mine, theirs = SOAP[case]

    def trained(module, options):
        param = torch.nn.Parameter(tensor(0, shape))
        # Theirs decays the parameter after the step, ours before it, as AdamW does.
        optimizer = module.SOAP([param], lr=0.01, weight_decay=0.0, **options)
        for seed in range(1, STEPS + 1):
            param.grad = tensor(seed, shape) + 0.3 * param.detach()
            optimizer.step()
        return param.detach()

    close = 1e-11 if case == "soap, never refreshed" else STEPS * 0.01 * 2.0**-24 * 5
    torch.testing.assert_close(
        trained(descend, mine), trained(published, theirs), rtol=0, atol=close
    )
