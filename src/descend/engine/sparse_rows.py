"""Sparse gradients on the CPU: the dense step's kernel, on the rows that a gradient holds.

A kernel walks chunks of memory; here each is a run of adjacent rows. Parameter and state are
written where they are: nothing is gathered, and nothing scattered. A compiled function finds the
runs: it checks the indices, sorts them, and adds up what a gradient holds of one row twice.
"""

from array import array
from collections.abc import Callable
from functools import cache as remember
from typing import Any

import torch
from torch import Tensor

from descend.engine import native
from descend.engine.cpu import CpuBatch
from descend.engine.eager import squares
from descend.engine.kernel_words import CALL, CHUNK, RUNS, address, new_words, put
from descend.engine.pointers import CHANGED, Found
from descend.engine.rule import Variant
from descend.engine.step_inputs import Member
from descend.engine.tensor_layout import is_plain, is_whole
from descend.engine.written_memory import COMPILED, WrittenMemory
from descend.errors import GradientError


class SparseBatch(CpuBatch):
    """Members with sparse gradients, of one dtype combination: one kernel call a step.

    To the check of pointers a parameter stands in for its gradient: what that function knows are
    dense tensors, and all else of such a member is one.
    """

    sparse = True

    def __init__(self, variant: Variant, device: torch.device) -> None:
        super().__init__(variant, device)
        self._find = _finder(variant.dtypes[1])
        self._spare = array("q", [0])
        self._order = array("q")
        self._grads: list[Tensor] = []
        self._kept: list[Tensor] = []

    @staticmethod
    def walks(member: Member) -> bool:
        """Whether all rows of a member are runs of memory, and those of its gradient suffice."""
        param, grad, part = member.param, member.grad, member.part
        return (
            grad is not None
            and type(grad) is Tensor
            and part.rule.sparse is not None
            and part.rule.sparse(part.flags)
            and grad.layout is torch.sparse_coo
            and grad.sparse_dim() > 0
            and grad.dtype is param.dtype
            and grad.device.type == "cpu"
            and all(
                is_plain(one)
                and one.device.type == "cpu"
                and one.is_contiguous()
                and not one.is_neg()
                for one in (param, *member.states())
            )
        )

    def _cut(self) -> None:
        """Make room for the runs; they are each step's own."""
        self._make_room(len(self._order))

    def look(self, params: list[Any], grads: list[Any]) -> Found:
        """Check parameters and states, and find the runs of rows that the gradients hold.

        Raises:
            GradientError: a gradient holds a row that its parameter has not.
        """
        # A copy: the other batches are given the list of gradients, too.
        stand_ins, self._grads, self._active = list(grads), [], []
        for index, position in enumerate(self._positions):
            grad, param = grads[position], params[position]
            if grad is not None:
                # Rows are runs of memory only where the parameter is contiguous; the check below
                # sees to it that its states are laid out likewise.
                if (
                    type(grad) is not Tensor
                    or grad.layout is not torch.sparse_coo
                    or grad.shape != param.shape
                    or not param.is_contiguous()
                ):
                    return CHANGED
                stand_ins[position] = param
                self._grads.append(grad)
                self._active.append(index)
        found = super().look(params, stand_ins)
        if found is CHANGED or not self._find_runs():
            return CHANGED
        for index in self._active:  # no address, so that no stand-in is taken for a gradient
            self.pointers[index * self.variant.columns + 1] = 1
        return found

    def watch(self, written: WrittenMemory) -> None:
        """Find the runs anew: values that lie in this memory are copied.

        The check is not told: it would find the stand-ins for gradients there.
        """
        self._written = written
        self._find_runs()

    def _find_runs(self) -> bool:
        """Write down the runs of all gradients; False where the kernel cannot read one."""
        self._kept, self.elements, self._chunk_total = [], 0, 0
        # A run for each entry, if none are adjacent, and one that counts the step.
        most = sum(1 + grad._nnz() for grad in self._grads)
        if most > len(self._order):
            self._make_room(most)
        for index, grad in zip(self._active, self._grads, strict=True):
            if not self._find_runs_of(index, grad):
                return False
        self._call[CALL.chunk_total] = self._chunk_total
        return True

    def _find_runs_of(self, index: int, grad: Tensor) -> bool:
        """Write down the runs of one member's gradient, behind those of the members before it."""
        # Autograd would record what is read out of a gradient that requires one itself.
        plain = grad.detach() if grad.requires_grad else grad
        values, places = plain._values(), plain._indices()
        if values.dtype is not self.variant.dtypes[1] or not (
            is_whole(values) and is_whole(places)
        ):
            return False
        if not values.is_contiguous() or values.is_neg():
            values = values.resolve_neg().contiguous()
        start, elements = values.data_ptr(), values.numel()
        # The kernel reads values while it writes rows: they must not lie in what is written.
        if self._written is not None and self._written.meets(start, start + values.nbytes):
            values = values.clone()
        dims, many = places.shape
        repeated = many > 1 and not grad.is_coalesced()
        # The gradient is the user's, so what it holds of one row twice is added up elsewhere.
        sums = torch.empty_like(values) if repeated else values
        self._kept += places, values, sums  # the kernel reads them by address
        self.elements += elements
        words = self._runs[index]
        words[RUNS.entries] = many if elements else 0
        words[RUNS.dims] = dims
        words[RUNS.indices] = places.data_ptr()
        words[RUNS.by_dim], words[RUNS.by_entry] = places.stride()
        words[RUNS.values], words[RUNS.sums] = values.data_ptr(), sums.data_ptr()
        words[RUNS.length] = elements // (many or 1)
        words[RUNS.repeated] = repeated
        words[RUNS.row] = self.rows[index]
        words[RUNS.first] = self._chunk_total
        self._chunk_total = self._find(address(words))
        if self._chunk_total < 0:
            raise GradientError(
                f"{self.members[index]}: the gradient holds indices beyond its own shape "
                f"{tuple(grad.shape)}; make it with "
                "torch.sparse_coo_tensor(..., check_invariants=True)"
            )
        return True

    def _make_room(self, most: int) -> None:
        """Make room for the chunks, pointers and rows of so many runs."""
        columns = self.variant.columns
        buffers = [array("q", bytes(8 * width * most)) for width in (len(CHUNK), columns, 1, 1)]
        self._chunks, self._run_pointers, self._run_rows, self._order = buffers
        chunks, pointers, rows, order = map(address, buffers)
        put(self._call, CALL, chunks=chunks, pointers=pointers, rows=rows)
        self._shapes = [array("q", param.shape) for param in self._params]
        self._runs = [new_words(RUNS) for _ in self._params]
        for index, words in enumerate(self._runs):
            put(
                words,
                RUNS,
                shape=address(self._shapes[index]),
                member=address(self.pointers) + 8 * columns * index,
                columns=columns,
                operands=len(self.variant.operands),
                itemsizes=address(self._itemsizes),
                spare=address(self._spare),
                order=order,
                chunks=chunks,
                pointers=pointers,
                rows=rows,
            )

    def launch(self) -> None:
        """Update rows, state and step counts."""
        super().launch()
        self._grads, self._kept = [], []

    def squares(self) -> tuple[list[float], bool]:
        """The gradients' sums of squares, and whether all elements are finite."""
        return squares(self._grads)


@remember
def _finder(dtype: torch.dtype) -> Callable[[int], int]:
    """The compiled function that finds the runs, for gradients of this dtype."""

    def build() -> Any:
        from descend.engine import compiled_runs

        return compiled_runs.finder(dtype)

    text = native.text_of("compiled_runs.py", *COMPILED)
    return native.holding(native.address_of(f"runs {dtype}\n{text}", build))
