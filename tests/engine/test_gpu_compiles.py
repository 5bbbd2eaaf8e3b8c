"""The Triton kernels compile to machine code for real GPUs, which needs none to be there."""

import pytest

from children import python
from descend.engine.rule import Rule
from descend.optimizers import CATALOGUE

pytest.importorskip("triton")

COMPILE = """
import itertools, sys, torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from descend.engine import cautious, gpu
from descend.engine.rule import Variant
from descend.optimizers import CATALOGUE

capability, names = int(sys.argv[1]), sys.argv[2:]
dtypes = torch.float32, torch.float64, torch.bfloat16, torch.float16
def is_compiled(kernel, signature):
    source = ASTSource(
        fn=kernel,
        signature={**signature, "BLOCK": "constexpr"},
        constexprs={"BLOCK": gpu.BLOCK},
    )
    compiled = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"enable_fp_fusion": True}
    )
    return len(compiled.asm["cubin"]) > 0 and "st.global" in compiled.asm["ptx"]

for name in names:
    cls = CATALOGUE[name]
    optimizer = cls([torch.zeros(1)])
    group = optimizer.options_of(optimizer.param_groups[0])
    for dtype, on in itertools.product(dtypes, (False, True)):
        asked = {**group, "cautious": on, "cautious_weight_decay": on, "weight_decay": 0.1}
        rule = cautious.applied(cls.rule, asked) if "cautious" in group else cls.rule
        flags = dict.fromkeys(rule.flags(asked), on)
        tensors = (dtype,) * (2 + len(rule.present(flags)))
        variant = Variant(rule, tuple(flags.items()), tensors, on, on)
        kernels = [(gpu._kernel(variant), {})]
        for measure in rule.measures:
            kernels.append((gpu._measure_kernel(variant, measure), {"parts": "*fp64"}))
        tables = {"chunks": "*i64", "pointers": "*i64", "rows": "*i64", "scalars": "*fp64"}
        good = [is_compiled(kernel, {**tables, **more}) for kernel, more in kernels]
        print(name, dtype, on, all(good))
tables = {"parts": "*fp64", "firsts": "*i64", "sums": "*fp64", "total": "i32"}
print("sum", is_compiled(gpu._sum_kernel(), tables))
"""


# One optimizer for each rule that has kernels.
RULES = {name: getattr(cls, "rule", None) for name, cls in CATALOGUE.items()}
NAMES = {rule: name for name, rule in RULES.items() if isinstance(rule, Rule)}.values()


# One process for all: to import torch and Triton takes longer than to compile a rule.
@pytest.mark.parametrize(("capability", "names"), [(90, [*NAMES]), (80, ["adamw", "sgd"])])
def test_kernels_compile(capability, names, tmp_path):
    environment = {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    # Triton reads a kernel's source from the file it stands in, so the script is a file.
    script = tmp_path / "compile.py"
    script.write_text(COMPILE)
    done = python(script, capability, *names, environment=environment)
    lines = done.stdout.splitlines()
    wanted = [name for name in names for _ in range(8)]
    assert [line.split()[0] for line in lines] == [*wanted, "sum"]
    assert all(line.endswith("True") for line in lines), done.stdout
