"""SOAP.

- N. Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", ICLR 2025, arXiv:2409.11321,
  algorithm 3 (a layer's step) and 4 (QR of one power iteration, for the eigenvectors).

Where the authors' code says more than the paper, https://github.com/nikhilvyas/SOAP:

- the first step moves nothing: it begins the preconditioners, and the bases are their eigenvectors;
- Adam's t is that of the steps after it, and epsilon is added before the corrections;
- the bases are refreshed after the step, and vectors come in the order of their eigenvalues;
- a tensor of more than two dimensions has a preconditioner for each; neighbouring dimensions may be
  merged first, from the left, as long as their product allows.

Where descend differs from it: weight decay, absent from the paper, comes before the step; a
dimension of length 1 has no preconditioner, and what has none at all is AdamW's from the first step
on. Eigenvectors of the eigenvalue 0, of which there are many after one gradient, are those with
which Householder's reflections complete the others.

The mean of the gradient is kept in the parameter's own space here, and projected in every step, as
the paper has it; the state that is compared is its projection.

Complex numbers, which neither has: bases are unitary, the square is that of the magnitude.
"""

import numpy as np

from oracles import adamw as companion


def _lengths(shape, merge_dims, limit):
    """The shape after merging."""
    if not merge_dims:
        return list(shape)
    merged = []
    for length in shape:
        if merged and merged[-1] * length <= limit:
            merged[-1] *= length
        else:
            merged.append(length)
    return [length for length in merged if length > 1] or [1]


def _dims(shape, lengths, limit, precondition_1d):
    if 0 in shape or len(shape) == 0 or (len(shape) == 1 and not precondition_1d):
        return []
    return [dim for dim, length in enumerate(lengths) if 1 < length <= limit]


def _how(param, max_precond_dim=10000, merge_dims=False, precondition_1d=False, **_hyper):
    lengths = _lengths(param.shape, merge_dims, max_precond_dim)
    return lengths, _dims(param.shape, lengths, max_precond_dim, precondition_1d)


def start(param, **hyper):
    """Everything zero."""
    lengths, dims = _how(param, **hyper)
    state = {"exp_avg": np.zeros_like(param), "exp_avg_sq": np.zeros(param.shape)}
    for name in ("preconditioner", "basis"):
        for dim in dims:
            state[f"{name}_{dim}"] = np.zeros((lengths[dim],) * 2, dtype=param.dtype)
    return {**state, "mean": np.zeros(lengths, dtype=param.dtype)} if dims else state


def _projected(tensor, bases, back=False):
    for dim, basis in bases.items():
        matrix = basis if back else basis.conj().T
        tensor = np.moveaxis(np.tensordot(matrix, tensor, axes=(1, dim)), 0, dim)
    return tensor


def _orthogonal(matrix):
    """The Q of QR, by Householder's reflections; a column of zeros reflects nothing."""
    rest, q = np.array(matrix), np.eye(len(matrix), dtype=matrix.dtype)
    for column in range(len(matrix) - 1):
        x = rest[column:, column]
        length = np.sqrt((abs(x) ** 2).sum())
        if length == 0:
            continue
        first = np.zeros_like(x)
        phase = x[0] / abs(x[0]) if x[0] != 0 else 1
        first[0] = -phase * length
        v = (x - first)[:, None]
        v = v / np.sqrt((abs(v) ** 2).sum())
        rest[column:] -= 2 * v @ (v.conj().T @ rest[column:])
        q[:, column:] -= 2 * (q[:, column:] @ v) @ v.conj().T
    return q


def _eigenvectors(gram):
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1], vectors[:, ::-1]
    return _orthogonal(np.where(values > 1e-13 * values.max(), vectors, 0))


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=3e-3,
    betas=(0.95, 0.95),
    shampoo_beta=None,
    eps=1e-8,
    weight_decay=0.01,
    precondition_frequency=10,
    normalize_grads=False,
    correct_bias=True,
    maximize=False,
    **hyper,
):
    """One step; `preconditioner_0` is the paper's L, `basis_0` its Q_L, `exp_avg_sq` its V."""
    lengths, dims = _how(param, **hyper)
    if not dims:
        assert correct_bias
        return companion.step(
            param,
            grad,
            state,
            t,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            maximize=maximize,
        )
    beta1, beta2 = betas
    beta = beta2 if shampoo_beta is None else shampoo_beta
    grad = (-grad if maximize else grad).reshape(lengths)
    mean, second = state["mean"], state["exp_avg_sq"].reshape(lengths)
    bases = {dim: state[f"basis_{dim}"] for dim in dims}
    if t > 1:
        rotated = _projected(grad, bases)
        mean = beta1 * mean + (1 - beta1) * grad
        second = beta2 * second + (1 - beta2) * abs(rotated) ** 2
        direction = _projected(_projected(mean, bases) / (np.sqrt(second) + eps), bases, back=True)
        if normalize_grads:
            direction = direction / np.sqrt((abs(direction) ** 2).mean())
        if correct_bias:
            direction = direction * np.sqrt(1 - beta2 ** (t - 1)) / (1 - beta1 ** (t - 1))
        param = (1 - lr * weight_decay) * param - lr * direction.reshape(param.shape)

    grams = {}
    for dim in dims:
        others = [other for other in range(len(lengths)) if other != dim]
        product = np.tensordot(grad, grad.conj(), axes=(others, others))
        grams[dim] = beta * state[f"preconditioner_{dim}"] + (1 - beta) * product
        if t == 1:
            bases[dim] = _eigenvectors(grams[dim])
        elif (t - 1) % precondition_frequency == 0:
            basis = bases[dim]
            values = (basis.conj().T @ grams[dim] @ basis).diagonal().real
            order = np.argsort(-values, kind="stable")
            bases[dim] = _orthogonal((grams[dim] @ basis)[:, order])
            second = np.take(second, order, axis=dim)
    return param, {
        "exp_avg": _projected(mean, bases).reshape(param.shape),
        "exp_avg_sq": second.reshape(param.shape),
        **{f"preconditioner_{dim}": grams[dim] for dim in dims},
        **{f"basis_{dim}": bases[dim] for dim in dims},
        "mean": mean,
    }
