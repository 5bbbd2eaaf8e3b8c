"""Press Ctrl-C at random moments of a training; see that no step is ever half taken.

    python interrupted.py BACKEND SIZE...

Every round restarts a run of a few steps whose every intermediate result is known, bit for bit,
from a run without interrupts. Ends after ENOUGH interrupts that fell into a step, or SECONDS;
prints how many did.
"""

import os
import random
import signal
import sys
import threading
import time

import torch

import descend
from descend.engine import forced_backend

STEPS = 4
ENOUGH = 5
SECONDS = 40.0


def snapshot(optimizer, params):
    """Copies of the parameters and of their state."""
    return [
        (
            param.detach().clone(),
            {key: value.clone() for key, value in optimizer.state.get(param, {}).items()},
        )
        for param in params
    ]


def same(one, other):
    """Whether two tensors and their states are equal; no state is the state of zero steps."""
    if not torch.equal(one[0], other[0]):
        return False
    if not one[1] or not other[1]:
        return all(not value.any() for value in (one[1] or other[1]).values())
    return all(torch.equal(value, other[1][key]) for key, value in one[1].items())


def main(backend, size):
    """Interrupt until enough steps were hit; returns how many, and in how many rounds."""
    torch.set_num_threads(2)
    numbers = torch.Generator().manual_seed(0)
    shapes = [size, 7, size // 3]
    starts = [torch.randn(shape, generator=numbers) for shape in shapes]
    grads = [[torch.randn(shape, generator=numbers) for shape in shapes] for _ in range(STEPS)]
    params = [torch.nn.Parameter(start.clone()) for start in starts]

    def restart():
        for param, start in zip(params, starts, strict=True):
            param.data.copy_(start)
        return descend.AdamW(params, lr=0.1, amsgrad=True)

    def give(step):
        for param, grad in zip(params, grads[step], strict=True):
            param.grad = grad

    optimizer = restart()
    known = [snapshot(optimizer, params)]
    with forced_backend(backend):
        for step in range(STEPS):
            give(step)
            optimizer.step()
            known.append(snapshot(optimizer, params))
        once = restart()
        began = time.perf_counter()
        for step in range(STEPS):
            give(step)
            once.step()
        duration = time.perf_counter() - began

        chance = random.Random(0)
        hits = rounds = 0
        end = time.monotonic() + SECONDS
        while hits < ENOUGH and time.monotonic() < end:
            optimizer = restart()
            completed, inside, struck = 0, False, False
            wait = chance.uniform(0, duration)

            def press(wait=wait):
                time.sleep(wait)
                os.kill(os.getpid(), signal.SIGINT)

            presser = threading.Thread(target=press)
            try:
                presser.start()
                for step in range(STEPS):
                    give(step)
                    inside = True
                    optimizer.step()
                    inside = False
                    completed += 1
                while True:
                    time.sleep(1)
            except KeyboardInterrupt:
                struck = inside
            presser.join()
            hits += struck
            rounds += 1
            found = snapshot(optimizer, params)
            allowed = [completed, completed + 1] if completed < STEPS else [completed]
            taken = [
                [count for count in allowed if same(found[index], known[count][index])]
                for index in range(len(params))
            ]
            assert all(taken), f"round {rounds}: half a step, after {completed}: {taken}"
            assert len({tuple(counts) for counts in taken}) == 1, f"uneven: {taken}"
    return hits, rounds


if __name__ == "__main__":
    for size in sys.argv[2:]:
        print(*main(sys.argv[1], int(size)))
