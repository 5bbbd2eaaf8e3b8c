"""The Triton kernels on a real GPU: `TRITON_INTERPRET=0 pytest -m gpu -n0`.

Everything else about them is tested in Triton's interpreter and by compiling for real GPUs.
"""

import pytest
import torch
from torch.nn import Parameter

import descend
from descend.engine import forced_backend
from descend.engine.rule import Rule
from descend.optimizers import CATALOGUE

pytestmark = pytest.mark.gpu

RULES = {name: getattr(cls, "rule", None) for name, cls in CATALOGUE.items()}
FUSED = [name for name, rule in RULES.items() if isinstance(rule, Rule) and rule.dense]
CAPTURABLE = [name for name, cls in CATALOGUE.items() if "capturable" in cls.hyperparameters]
SHAPES = [(3, 5), (1025,), (), (0, 3), (17, 33)]


def train(name, device, dtype, steps=20, **options):
    generator = torch.Generator().manual_seed(0)
    params = [
        Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype))
        for shape in SHAPES
    ]
    optimizer = CATALOGUE[name](params, lr=0.02, **options)
    for _ in range(steps):
        for param in params:
            grad = torch.randn(param.shape, generator=generator, dtype=torch.float64)
            param.grad = grad.to(device, dtype)
        optimizer.step()
    return params, optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("clip", [{}, {"clip_norm": 1.0, "clip_value": 0.1}])
@pytest.mark.parametrize("name", FUSED)
def test_the_gpu_agrees_with_the_reference(name, dtype, clip):
    params, optimizer = train(name, "cuda", dtype, **clip)
    assert [record["backend"] for record in optimizer.explain()] == ["gpu"]
    with forced_backend("eager"):
        expected, _ = train(name, "cpu", dtype, **clip)
    # Division is approximate to 2 units in the last place in float32.
    bounds = {torch.float32: (1e-5, 1e-6), torch.float64: (1e-11, 1e-12)}[dtype]
    for mine, theirs in zip(params, expected, strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, rtol=bounds[0], atol=bounds[1])


def test_a_model_that_moves_takes_its_state_along():
    model = torch.nn.Linear(4, 3)
    optimizer = descend.Adam(model.parameters(), lr=0.1)
    for device in ("cpu", "cuda", "cpu"):
        model.to(device)
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        optimizer.step()
    weight = model.weight
    assert optimizer.state[weight]["step"].item() == 3
    assert optimizer.state[weight]["exp_avg"].device.type == "cpu"


@pytest.mark.parametrize("name", CAPTURABLE)
def test_a_capturable_step_replays_in_a_graph(name):
    def run(captured):
        param = Parameter(torch.ones(10, 10, device="cuda"))
        param.grad = torch.linspace(-1, 1, 100, device="cuda").view(10, 10)
        lr = torch.tensor(0.1, device="cuda")
        optimizer = CATALOGUE[name]([param], lr=lr, capturable=True)
        if not captured:
            for _ in range(8):
                optimizer.step()
            return param.detach()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                optimizer.step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            optimizer.step()
        for _ in range(5):
            graph.replay()
        return param.detach()

    torch.testing.assert_close(run(captured=True), run(captured=False))


def test_capturing_a_step_that_is_not_capturable_is_refused():
    param = Parameter(torch.ones(100, device="cuda"))
    param.grad = torch.ones(100, device="cuda")
    optimizer = descend.AdamW([param], lr=0.1)
    optimizer.step()
    torch.cuda.synchronize()
    with (
        pytest.raises(descend.errors.ConflictError, match="capturable=True"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        optimizer.step()
