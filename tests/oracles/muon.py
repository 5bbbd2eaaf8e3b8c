"""Muon.

- K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
  https://kellerjordan.github.io/posts/muon/: momentum, Newton-Schulz, its quintic coefficients, and
  the scale sqrt(max(1, rows / columns)).
- J. Liu et al., "Muon is Scalable for LLM Training", 2025, arXiv:2502.16982: weight decay, and the
  scale 0.2 sqrt(max(rows, columns)).
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


def start(param, *, adamw=None, **_hyper):
    """No momentum yet."""
    if adamw or param.ndim < 2:
        return companion.start(param)
    return {"momentum_buffer": np.zeros_like(param)}


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
        return param, {"momentum_buffer": buffer}
    ahead = momentum * buffer + (1 - momentum) * grad if nesterov else buffer
    direction = orthogonal(ahead.reshape(len(param), -1), ns_coefficients, ns_steps, eps)
    rows, cols = direction.shape
    if adjust_lr_fn == "match_rms_adamw":
        scale = 0.2 * np.sqrt(max(rows, cols))
    elif adjust_lr_fn == "spectral_unclamped":
        scale = np.sqrt(rows / cols)
    else:
        scale = np.sqrt(max(1, rows / cols))
    param = param * (1 - lr * weight_decay) - lr * scale * direction.reshape(param.shape)
    return param, {"momentum_buffer": buffer}


def orthogonal(matrix, coefficients, steps, eps):
    """What the iteration makes of a matrix, by its singular values."""
    a, b, c = coefficients
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / max(np.sqrt((values**2).sum()), eps)
    for _ in range(steps):
        values = a * values + b * values**3 + c * values**5
    return (left * values) @ right
