"""What is measured in processes of its own: start-up and memory. No figure is judged here."""

import platform

import pytest

from descend.bench import peak_memory, startup
from descend.bench.contenders import SCALE
from descend.bench.peak_memory import StepMemory
from descend.bench.workloads import WORKLOADS
from descend.errors import DescendError


def test_start_up_measures_imports_and_both_first_steps():
    found = startup.start_up(cold_runs=1, cached_runs=1)
    assert found.import_torch.median > found.import_descend.median > 0
    assert found.first_step_cold.median > 0
    assert found.first_step_cached.median > 0


def test_cold_processes_get_a_new_folder_each_and_cached_ones_the_last(monkeypatch):
    folders = []

    def start(folder):
        folders.append(folder)
        number = float(len(folders))
        return {"import_torch": 1.0, "import_descend": 0.1, "first_step": number}

    monkeypatch.setattr(startup, "_start", start)
    found = startup.start_up(cold_runs=3, cached_runs=2)
    assert len(set(folders[:3])) == 3
    assert folders[3:] == [folders[2]] * 2
    assert found.first_step_cold.median == 2.0
    assert found.first_step_cached.median == 4.5


def test_the_cache_folder_is_the_one_that_the_engine_reads(monkeypatch, tmp_path):
    from descend.engine import cache

    monkeypatch.setenv(startup.CACHE_VARIABLE, str(tmp_path / "kernels"))
    cache.write("0" * 64, b"kernel")
    assert any((tmp_path / "kernels").rglob("*"))


def test_a_child_that_fails_says_why():
    with pytest.raises(DescendError) as caught:
        startup.python_child("import sys; sys.exit('no luck with ' + sys.argv[1])", "this")
    assert str(caught.value) == (
        "bench: a measuring process ended with status 1: no luck with this"
    )
    with pytest.raises(DescendError, match=r"status 3: it wrote nothing$"):
        startup.python_child("raise SystemExit(3)")


def test_a_child_gets_its_environment():
    source = "import os; print(os.environ['DESCEND_BENCH_TEST'])"
    assert startup.python_child(source, DESCEND_BENCH_TEST="here") == "here\n"


def test_memory_is_measured_for_every_contender_and_holds_small_temporaries():
    found = peak_memory.step_memory("adamw", "convnet", 1)
    assert [one.contender for one in found] == [
        "descend", "torch default", "torch foreach", "torch fused"
    ]  # fmt: skip
    for one in found:
        assert (one.case, one.workload) == ("adamw", "convnet")
        assert one.extra_bytes is None or one.extra_bytes >= 0
    extra = found[2].extra_bytes
    if extra is not None and platform.libc_ver()[0] == "glibc":
        # Foreach holds the root of each second moment at once: 150 tensors of 64 KiB and 300 small
        # ones. From room that malloc kept, it would take a part of them, or nothing.
        assert abs(extra - WORKLOADS["convnet"].nbytes) < 2 << 20


def test_memory_is_measured_for_a_rule_of_the_users_own(own_rule):
    found = peak_memory.step_memory(f"{own_rule}:MyRule", "mlp", 1)
    assert [one.contender for one in found] == ["descend", SCALE]


def test_where_the_system_does_not_tell_nothing_is_measured(
    catalogue, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(peak_memory, "_PROCESS", tmp_path / "nowhere")
    monkeypatch.setattr("sys.argv", ["-c", "sgd", "mlp", "1"])
    peak_memory.print_extra_bytes()
    assert capsys.readouterr().out == (
        '{"descend": null, "torch default": null, "torch foreach": null, "torch fused": null}\n'
    )


def test_a_child_s_answer_becomes_data(monkeypatch):
    monkeypatch.setattr(
        peak_memory,
        "python_child",
        lambda *_, **environment: 'noise\n{"descend": 5, "torch x": null}\n',
    )
    assert peak_memory.step_memory("sgd", "mlp", 2) == [
        StepMemory("sgd", "mlp", "descend", 5),
        StepMemory("sgd", "mlp", "torch x", None),
    ]


GROWS = """
import mmap
from descend.bench import peak_memory

def grow(mebibytes):  # from the system: malloc may have such room left over
    with mmap.mmap(-1, mebibytes << 20) as room:
        for page in range(0, len(room), mmap.PAGESIZE):
            room[page] = 1

grow(256)
if peak_memory._forget_peak():
    before = peak_memory._status_bytes("VmRSS")
    grow(64)
    print(peak_memory._status_bytes("VmHWM") - before)
"""


def test_growth_within_a_step_is_seen_and_that_before_it_is_not():
    printed = startup.python_child(GROWS)
    if not printed:
        pytest.skip("this system does not tell the largest resident size")
    assert 48 << 20 < int(printed) < 96 << 20
