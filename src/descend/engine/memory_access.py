"""Typed memory access for Numba kernels: what a kernel does with a checked address.

Imported only while a kernel is being compiled. Each function makes a Numba intrinsic. bfloat16 and
float16 are widened to float32 by the load and rounded to nearest, ties to even, by the store.
"""

from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_KINDS = {
    torch.float32: (ir.FloatType(), types.float32),
    torch.float64: (ir.DoubleType(), types.float64),
    torch.int64: (ir.IntType(64), types.int64),
    torch.bfloat16: (ir.IntType(16), types.float32),
    torch.float16: (ir.IntType(16), types.float32),
}
_I32, _I16 = ir.IntType(32), ir.IntType(16)


def _scoped(builder: Any, instruction: Any, operand: int | None, count: int) -> Any:
    """Tell LLVM that the operands of a kernel never overlap (the plan has checked it).

    Without it LLVM compares all address ranges at run time, and from five operands on it gives up
    and leaves the loop scalar.
    """
    if operand is None:
        return instruction
    # Zen 4 and Skylake-X stream faster with these than with 512-bit vectors (by 4 to 5 %).
    # llvmlite knows only attributes without a value; LLVM reads this one all the same.
    set.add(builder.function.attributes, '"prefer-vector-width"="256"')
    module = builder.module
    domain = module.add_metadata(["descend"])
    scopes = [module.add_metadata([f"operand {i}", domain]) for i in range(count)]
    instruction.set_metadata("alias.scope", module.add_metadata([scopes[operand]]))
    others = [scope for i, scope in enumerate(scopes) if i != operand]
    if others:
        instruction.set_metadata("noalias", module.add_metadata(others))
    return instruction


def _widened(builder: Any, value: Any, dtype: torch.dtype, compute: torch.dtype) -> Any:
    if dtype is torch.bfloat16:
        shifted = builder.shl(builder.zext(value, _I32), _I32(16))
        value = builder.bitcast(shifted, ir.FloatType())
    elif dtype is torch.float16:
        value = builder.fpext(builder.bitcast(value, ir.HalfType()), ir.FloatType())
    if compute is torch.float64 and dtype is not torch.float64:
        return builder.fpext(value, ir.DoubleType())
    if compute is torch.float32 and dtype is torch.float64:
        return builder.fptrunc(value, ir.FloatType())
    return value


def _narrowed(builder: Any, value: Any, dtype: torch.dtype, compute: torch.dtype) -> Any:
    if compute is torch.float64 and dtype is not torch.float64:
        value = builder.fptrunc(value, ir.FloatType())
    elif compute is torch.float32 and dtype is torch.float64:
        value = builder.fpext(value, ir.DoubleType())
    if dtype is torch.bfloat16:
        bits = builder.bitcast(value, _I32)
        odd = builder.and_(builder.lshr(bits, _I32(16)), _I32(1))
        rounded = builder.lshr(builder.add(bits, builder.add(odd, _I32(0x7FFF))), _I32(16))
        kept = builder.select(builder.fcmp_unordered("uno", value, value), _I32(0x7FC0), rounded)
        return builder.trunc(kept, _I16)
    if dtype is torch.float16:
        return builder.bitcast(builder.fptrunc(value, ir.HalfType()), _I16)
    return value


def loader(
    dtype: torch.dtype,
    compute: torch.dtype | None = None,
    operand: int | None = None,
    count: int = 0,
) -> Any:
    """An intrinsic `load(address, index)` of one element, as a number of dtype `compute`.

    Args:
        dtype: of the element in memory; integers are never converted.
        compute: of the result; None keeps the element's (float32 for 16-bit elements).
        operand: which operand of the kernel this is, if it has any that never overlap.
        count: how many such operands there are.
    """
    element, number = _KINDS[dtype]
    wanted = compute or dtype
    result = _KINDS[compute][1] if compute else number

    @intrinsic
    def load(context: Any, address: Any, index: Any) -> Any:
        def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], element.as_pointer())
            read = builder.load(builder.gep(pointer, [arguments[1]]))
            return _widened(builder, _scoped(builder, read, operand, count), dtype, wanted)

        return result(types.int64, types.int64), generate

    return load


def storer(
    dtype: torch.dtype,
    compute: torch.dtype | None = None,
    operand: int | None = None,
    count: int = 0,
) -> Any:
    """An intrinsic `store(address, index, value)` of one element; see `loader`."""
    element, number = _KINDS[dtype]
    given = compute or dtype
    accepted = _KINDS[compute][1] if compute else number

    @intrinsic
    def store(context: Any, address: Any, index: Any, value: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], element.as_pointer())
            place = builder.gep(pointer, [arguments[1]])
            written = builder.store(_narrowed(builder, arguments[2], dtype, given), place)
            _scoped(builder, written, operand, count)
            return target.get_dummy_value()

        return types.void(types.int64, types.int64, accepted), generate

    return store


@intrinsic
def claim(context: Any, address: Any) -> Any:
    """Add one to the integer at an address, atomically; returns what it was."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, ir.IntType(64)(1), "seq_cst")

    return types.int64(types.int64), generate


def caller(returned: Any) -> Any:
    """An intrinsic that calls a C function of two integers (or pointers) by its address."""
    integer = ir.IntType(64)
    kind = ir.FunctionType(ir.IntType(returned.bitwidth), [integer, integer])

    @intrinsic
    def call(context: Any, function: Any, first: Any, second: Any) -> Any:
        def generate(_: Any, builder: Any, signature: Any, given: Any) -> Any:
            return builder.call(builder.inttoptr(given[0], kind.as_pointer()), given[1:])

        return returned(types.int64, types.int64, types.int64), generate

    return call
