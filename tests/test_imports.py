"""What `import descend` costs, and what is left when a heavy library is missing."""

import os

import pytest

import descend
from children import python


def printed(code):
    """What a fresh interpreter prints; warnings go to the output too."""
    done = python("-c", code)
    return done.stdout + done.stderr


def test_import_loads_nothing_heavy():
    heavy = ["numba", "llvmlite", "triton", "matplotlib", "optuna", "rich", "click"]
    loaded = printed(
        "import torch, sys; before = set(sys.modules); from descend import *; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    ).split()
    assert not set(heavy) & set(loaded)
    assert "descend" in loaded


def test_import_alone_loads_no_torch():
    """Nor does asking what there is; a name does, once, and then it is a plain attribute."""
    code = """
import sys, descend as optim
print("torch" in sys.modules, "AdamW" in dir(optim), "torch" in sys.modules)
print(optim.errors.StateError.__name__, "torch" in sys.modules)
print(optim.AdamW.__name__, "torch" in sys.modules, vars(optim)["AdamW"] is optim.AdamW)
"""
    assert printed(code).splitlines() == [
        "False True False", "StateError False", "AdamW True True",
    ]  # fmt: skip


def test_help_loads_no_torch():
    code = """
import sys
from descend.cli import main
sys.argv = ["descend", "--help"]
try:
    main()
finally:
    print("torch" in sys.modules)
"""
    assert printed(code).splitlines()[-1] == "False"


WHERE = """
for name in sorted(descend.__all__):
    value = vars(module)[name]
    print(name, getattr(value, "__module__", ""), value.__name__)
"""


def test_every_public_name_resolves():
    """By attribute, by import and by star import, each in a process that has nothing loaded."""
    by_attribute, by_import, by_star = (
        printed(f"import descend\nmodule = type(descend)('user')\n{code}\n{WHERE}")
        for code in (
            "for name in descend.__all__: setattr(module, name, getattr(descend, name))",
            "for name in descend.__all__: exec(f'from descend import {name}', vars(module))",
            "exec('from descend import *', vars(module))",
        )
    )
    assert by_attribute == by_import == by_star
    found = {line.split()[0]: line.split()[-1] for line in by_attribute.splitlines()}
    assert list(found) == sorted(descend.__all__)
    for name, own in found.items():
        assert own in (name, f"descend.{name}")
    optimizers = {kind.__name__ for kind in descend.optimizers.CATALOGUE.values()}
    assert optimizers | {"Optimizer", "Task", "param_groups", "errors"} <= set(descend.__all__)
    assert set(descend.__all__) <= set(dir(descend))


def test_the_version_is_the_packages_and_loads_nothing():
    said = printed("import sys, descend; print(descend.__version__, 'torch' in sys.modules)")
    assert said.split() == [descend.__version__, "False"]
    assert "__version__" in dir(descend)
    assert descend.checkpoint.provenance.provenance()["descend"] == descend.__version__


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'descend' has no attribute 'AdanW'") as error:
        descend.AdanW  # noqa: B018 - the access is the test
    assert (error.value.name, error.value.obj) == ("AdanW", descend)  # what "did you mean" reads
    with pytest.raises(ImportError, match="cannot import name 'AdanW'"):
        exec("from descend import AdanW")
    assert not hasattr(descend, "_AdamW")


@pytest.mark.slow
def test_type_checkers_see_what_is_there(tmp_path):
    """The names of the package as mypy reads them, and no others."""
    from mypy import api

    file = tmp_path / "user.py"
    file.write_text(
        "import descend as optim\n"
        "from descend import errors, param_groups\n"
        "reveal_type(optim.AdamW)\n"
        "reveal_type(errors.StateError)\n"
        "reveal_type(param_groups)\n"
        "optim.AdanW\n"
    )
    config = os.path.join(os.path.dirname(__file__), "..", "pyproject.toml")
    said, _, _ = api.run(
        [
            str(file),
            "--config-file",
            config,
            "--cache-dir",
            str(tmp_path),
            "--follow-imports=silent",
        ]
    )
    found = [line.split(": ", 2)[2] for line in said.splitlines()[:-1] if "user.py" in line]
    assert found[0].startswith('Revealed type is "def (params:')
    assert 'descend.optimizers.adamw.AdamW"' in found[0]
    assert "descend.errors.StateError" in found[1]
    assert "def (model: torch.nn.modules.module.Module, rules:" in found[2]
    assert 'Module has no attribute "AdanW"' in found[3]


WITHOUT = """
import importlib.util, warnings
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {missing!r} else found(name, *rest)
import os
os.environ["TRITON_INTERPRET"] = "1"
import torch, descend
from descend import engine
weights = [torch.nn.Parameter(torch.ones(4)) for _ in range(2)]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with engine.forced_backend({backend!r}):
        for weight in weights:
            weight.grad = torch.ones(4)
            optimizer = descend.SGD([weight], lr=0.25)
            optimizer.step()
            optimizer.step()
print(len(caught), optimizer.explain()[0]["backend"], weights[0][0].item())
for warning in caught:
    print(warning.message)
"""


@pytest.mark.parametrize(
    ("missing", "backend", "said"),
    [
        (
            "numba",
            "cpu",
            "descend: Numba is not installed, so steps on the CPU take the slower eager path; "
            "pip install numba",
        ),
        (
            "triton",
            "gpu",
            "descend: Triton is not installed, so steps on the GPU take the slower eager path; "
            "pip install triton",
        ),
    ],
)
def test_without_a_compiler_everything_works_and_it_is_said_once(missing, backend, said):
    first, second = printed(WITHOUT.format(missing=missing, backend=backend)).splitlines()
    assert first == "1 eager 0.5"
    assert second == said
