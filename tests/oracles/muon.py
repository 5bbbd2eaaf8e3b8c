"""Muon.

- K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
  https://kellerjordan.github.io/posts/muon/: momentum, Newton-Schulz, its quintic coefficients, and
  the scale sqrt(max(1, rows / columns)).
- J. Liu et al., "Muon is Scalable for LLM Training", 2025, arXiv:2502.16982: weight decay, and the
  scale 0.2 sqrt(max(rows, columns)).
- Z. Li et al., "NorMuon", 2025, arXiv:2510.05491: the rows' running mean squares; the size that the
  matrix had, as in the authors' code.
- J. Bernstein, "Deriving Muon", 2025, https://jeremybernste.in/writing/deriving-muon: the scale
  sqrt(rows / columns).

The iteration X <- a X + (b A + c A^2) X with A = X X^H leaves the singular vectors of X as they are
and maps each singular value s to a s + b s^3 + c s^5. That is how it is computed here.

Where torch differs from the post: the momentum is a mean, (1 - momentum) times the post's sum,
which the orthogonal factor does not show; the norm is bounded by epsilon rather than increased by
it; the arithmetic of the iteration is bfloat16, here float64.

A tensor of more than two dimensions is the matrix (first dimension, all others), as in the post's
code. One of fewer, or with adamw=True any, is updated by AdamW.
"""

import numpy as np

from oracles import adamw as companion


def start(param, *, adamw=None, normalize=None, **_hyper):
    """No momentum yet."""
    if adamw or param.ndim < 2:
        return companion.start(param)
    rows = {"row_squares": np.zeros(len(param))} if normalize == "rows" else {}
    return {"momentum_buffer": np.zeros_like(param), **rows}


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=1e-3,
    weight_decay=0.1,
    momentum=0.95,
    nesterov=True,
    ns_coefficients=(3.4445, -4.7750, 2.0315),
    eps=1e-7,
    ns_steps=5,
    adjust_lr_fn=None,
    orthogonalize="newton-schulz",
    normalize=None,
    normalize_beta=0.95,
    adamw=None,
    adamw_lr=None,
    adamw_betas=(0.9, 0.999),
    adamw_eps=1e-8,
    maximize=False,
):
    """One step; `momentum_buffer` is (1 - momentum) times the post's B."""
    if adamw or param.ndim < 2:
        return companion.step(
            param,
            grad,
            state,
            t,
            lr=lr if adamw_lr is None else adamw_lr,
            betas=adamw_betas,
            eps=adamw_eps,
            weight_decay=weight_decay,
            maximize=maximize,
        )
    if maximize:
        grad = -grad
    buffer = momentum * state["momentum_buffer"] + (1 - momentum) * grad
    if param.size == 0:
        return param, {**state, "momentum_buffer": buffer}
    ahead = momentum * buffer + (1 - momentum) * grad if nesterov else buffer
    matrix, own = ahead.reshape(len(param), -1), {"momentum_buffer": buffer}
    if orthogonalize == "exact":
        direction = exact(matrix)
    elif orthogonalize == "polar-express":
        direction = express(matrix, ns_steps, eps)
    else:
        direction = orthogonal(matrix, ns_coefficients, ns_steps, eps)
    if normalize == "rows":
        size = np.linalg.norm(direction)
        squares = normalize_beta * state["row_squares"]
        squares = squares + (1 - normalize_beta) * np.mean(np.abs(direction) ** 2, axis=1)
        own["row_squares"] = squares
        direction = direction / (np.sqrt(squares) + 1e-10)[:, None]
        direction = direction * size / (np.linalg.norm(direction) + 1e-10)
    rows, cols = direction.shape
    if adjust_lr_fn == "match_rms_adamw":
        scale = 0.2 * np.sqrt(max(rows, cols))
    elif adjust_lr_fn == "spectral_unclamped":
        scale = np.sqrt(rows / cols)
    else:
        scale = np.sqrt(max(1, rows / cols))
    param = param * (1 - lr * weight_decay) - lr * scale * direction.reshape(param.shape)
    return param, own


EXPRESS = [
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
]


def express(matrix, steps, eps):
    """N. Amsel et al., "The Polar Express", 2025, algorithm 1, by the singular values."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / max(1.01 * np.sqrt((values**2).sum()), eps)
    for number in range(steps):
        x = values / 1.01 if number < len(EXPRESS) else values
        a, b, c = EXPRESS[number] if number < len(EXPRESS) else (1.875, -1.25, 0.375)
        values = a * x + b * x**3 + c * x**5
    return (left * values) @ right


def exact(matrix):
    """The orthogonal polar factor; nothing where a singular value is 0."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return (left * (values > 1e-12 * values.max(initial=0))) @ right


def orthogonal(matrix, coefficients, steps, eps):
    """What the iteration makes of a matrix, by its singular values."""
    a, b, c = coefficients
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / max(np.sqrt((values**2).sum()), eps)
    for _ in range(steps):
        values = a * values + b * values**3 + c * values**5
    return (left * values) @ right
