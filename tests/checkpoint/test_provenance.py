"""What a manifest says of the process that wrote it, and what of that matters on resume."""

import json

import pytest
import torch

from descend.checkpoint.provenance import differences, provenance


def test_it_is_plain_and_the_same_twice():
    here = provenance()
    assert json.loads(json.dumps(here, allow_nan=False)) == here
    assert provenance() == here
    assert differences(here, here) == []
    assert differences(json.loads(json.dumps(here)), here) == []


def test_it_names_what_can_change_bits():
    here = provenance()
    assert here["torch"] == torch.__version__
    assert here["threads"] == torch.get_num_threads()
    assert {"numpy", "python", "system", "processor", "devices", "cuda"} <= here.keys()


CHANGES = {
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "cudnn deterministic": lambda: setattr(torch.backends.cudnn, "deterministic", True),
    "cudnn benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "float32 matmul precision": lambda: torch.set_float32_matmul_precision("high"),
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
}


@pytest.fixture
def as_it_was():
    dtype, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn
    flags = (cudnn.deterministic, cudnn.benchmark)
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_default_dtype(dtype)
    torch.set_float32_matmul_precision(precision)
    cudnn.deterministic, cudnn.benchmark = flags
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_set_otherwise_is_told(as_it_was, name):
    before = provenance()
    CHANGES[name]()
    (told,) = differences(before, provenance())
    assert told.startswith(f"{name} {before[name]} there, {provenance()[name]} here")


def test_the_number_of_threads_is_told(monkeypatch):
    before = provenance()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert differences(before, provenance()) == [f"threads {before['threads']} there, 77 here"]


def test_the_workspace_of_cublas_is_told(monkeypatch):
    before = provenance()
    monkeypatch.setenv(
        "CUBLAS_WORKSPACE_CONFIG", ":16:8" if before["cublas workspace"] else ":4096:8"
    )
    assert len(differences(before, provenance())) == 1


def test_differences_are_told_in_words():
    there = {"torch": "2.12", "threads": 2, "same": 1, "descend": "0.1"}
    here = {"torch": "2.13", "threads": 2, "same": 1, "descend": "0.2"}
    assert differences(there, here) == ["torch 2.12 there, 2.13 here"]


def test_what_one_of_them_does_not_know_is_told():
    assert differences({"a": 1}, {"b": 2}) == ["a 1 there, None here", "b None there, 2 here"]
    assert differences({}, {}) == []
