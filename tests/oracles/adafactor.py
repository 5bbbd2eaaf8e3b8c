"""Adafactor.

- N. Shazeer, M. Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018:
  algorithm 4 (matrices) and 5 (vectors), with the decay rate 1 - t^-0.8, the clipping of the
  update and the relative step size of algorithm 6.

Where torch differs from the paper:

- the relative step is min(lr, 1 / sqrt(t)); the paper's constant 0.01 is lr's default;
- epsilon 1 is not added to the squared gradients: it is the smallest mean of the row factor, and
  the smallest root of the second moment that a gradient is divided by;
- weight decay, absent from the paper, shrinks the parameter by lr * weight_decay;
- the state holds means over rows and columns where the paper has sums;
- a tensor of more than two dimensions is matrices of its last two, each with factors of its own;
  the root mean squares are those of the whole tensor.

Complex numbers, which neither has: the square of a gradient is that of its magnitude.
"""

import numpy as np


def start(param, **_hyper):
    """No factors yet."""
    if param.ndim < 2:
        return {"variance": np.zeros(param.shape)}
    *others, rows, cols = param.shape
    return {"row_var": np.zeros((*others, rows, 1)), "col_var": np.zeros((*others, 1, cols))}


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=1e-2,
    beta2_decay=-0.8,
    eps=(None, 1e-3),
    d=1.0,
    weight_decay=0.0,
    maximize=False,
    dtype=np.float64,
):
    """One step; `dtype` is the one whose machine epsilon stands in for an epsilon 1 of None."""
    if maximize:
        grad = -grad
    if param.size == 0:
        return param, state
    eps1, eps2 = np.finfo(dtype).eps if eps[0] is None else eps[0], eps[1]
    beta2 = 1 - t**beta2_decay
    step_size = max(eps2, _rms(param)) * min(lr, 1 / np.sqrt(t))
    squares = np.abs(grad) ** 2
    if param.ndim < 2:
        second = beta2 * state["variance"] + (1 - beta2) * squares
        state = {"variance": second}
    else:
        second = np.empty(param.shape)
        state = {name: value.copy() for name, value in state.items()}
        for index in np.ndindex(param.shape[:-2]):
            second[index] = _matrix(squares[index], state, index, beta2, eps1)
    update = grad / np.maximum(np.sqrt(second), eps1)
    update = update / max(1, _rms(update) / d)
    return param * (1 - lr * weight_decay) - step_size * update, state


def _matrix(squares, state, index, beta2, eps1):
    """The second moment of one matrix: the outer product of its sums, divided by their total."""
    rows, cols = squares.shape
    row_sums = beta2 * state["row_var"][index][:, 0] * cols + (1 - beta2) * squares.sum(axis=1)
    col_sums = beta2 * state["col_var"][index][0, :] * rows + (1 - beta2) * squares.sum(axis=0)
    state["row_var"][index][:, 0] = row_sums / cols
    state["col_var"][index][0, :] = col_sums / rows
    return np.outer(row_sums, col_sums) / max(row_sums.sum(), eps1 * rows * cols)


def _rms(numbers):
    return np.sqrt(np.mean(np.abs(numbers) ** 2))
