"""Fork after large steps; the child steps too, and gets what the parent gets."""

import hashlib
import os
import signal
import warnings

import torch

import descend

SIZE = 1_500_000


def digest(param):
    """A hash of the bits, made without torch: its own thread pool does not survive a fork."""
    return hashlib.sha256(param.detach().numpy()).digest()


def made():
    """An optimizer over a large parameter whose gradient is there already."""
    param = torch.nn.Parameter(torch.linspace(-1, 1, SIZE))
    param.grad = torch.linspace(1, 2, SIZE)
    return param


def main():
    """Print what the child managed to do."""
    torch.set_num_threads(2)
    inherited, fresh = made(), made()
    optimizer = descend.Adam([inherited], lr=0.1, clip_norm=1.0)
    for _ in range(3):
        optimizer.step()

    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork beside threads
        child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that hangs dies of it
        optimizer.step()
        os.write(writing, digest(inherited))
        descend.Adam([fresh], lr=0.1).step()
        os.write(writing, digest(fresh))
        os._exit(0)

    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        received = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status} after {len(received) // 32} of 2 steps"

    optimizer.step()
    assert received[:32] == digest(inherited)
    print("inherited")
    descend.Adam([fresh], lr=0.1).step()
    assert received[32:] == digest(fresh)
    print("fresh")


if __name__ == "__main__":
    main()
