"""The Triton kernels compile to machine code for real GPUs, which needs none to be there."""

import os
import subprocess
import sys

import pytest

from descend.engine.rule import Rule
from descend.optimizers import CATALOGUE

pytest.importorskip("triton")

COMPILE = """
import sys, torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from descend.engine import gpu
from descend.engine.rule import Variant
from descend.optimizers import CATALOGUE

cls = CATALOGUE[sys.argv[1]]
capability = int(sys.argv[2])
optimizer = cls([torch.zeros(1)])
group = optimizer.options_of(optimizer.param_groups[0])
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for on in (False, True):
        flags = dict.fromkeys(cls.rule.flags(group), on)
        dtypes = (dtype,) * (2 + len(cls.rule.present(flags)))
        variant = Variant(cls.rule, tuple(flags.items()), dtypes, on, on)
        tables = {"chunks": "*i64", "pointers": "*i64", "rows": "*i64", "scalars": "*fp64"}
        source = ASTSource(
            fn=gpu._kernel(variant),
            signature={**tables, "BLOCK": "constexpr"},
            constexprs={"BLOCK": gpu.BLOCK},
        )
        compiled = triton.compile(
            source, target=GPUTarget("cuda", capability, 32), options={"enable_fp_fusion": True}
        )
        stores = compiled.asm["ptx"].count("st.global")
        print(dtype, on, len(compiled.asm["cubin"]) > 0, stores > 0)
"""


# One optimizer for each rule that has kernels.
RULES = {name: getattr(cls, "rule", None) for name, cls in CATALOGUE.items()}
NAMES = {rule: name for name, rule in RULES.items() if isinstance(rule, Rule)}.values()


@pytest.mark.parametrize(
    ("name", "capability"), [*((name, 90) for name in NAMES), ("adamw", 80), ("sgd", 80)]
)
def test_kernels_compile(name, capability, tmp_path):
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    # Triton reads a kernel's source from the file it stands in, so the script is a file.
    script = tmp_path / "compile.py"
    script.write_text(COMPILE)
    done = subprocess.run(
        [sys.executable, str(script), name, str(capability)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 8
    assert all(line.endswith("True True") for line in done.stdout.splitlines()), done.stdout
