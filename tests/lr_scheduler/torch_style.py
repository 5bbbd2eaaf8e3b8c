"""Schedulers as people write them on torch's base class, for torch's module or for descend's.

Each is written anew here, after a kind that is common in public programs: gradual warmups around
another scheduler, cosine restarts with warmup, warmups by iteration, what reads or steps another.
"""

import math
from types import SimpleNamespace


def written(m):
    """The classes, on the base classes of a module."""

    class Gradual(m._LRScheduler):
        """Up to a multiple of the base, and then another scheduler, whose bases it replaces."""

        def __init__(self, optimizer, times, length, after=None):
            self.times, self.length, self.after, self.handed = times, length, after, False
            super().__init__(optimizer)

        def get_lr(self):
            if self.last_epoch <= self.length:
                return [
                    base * (1 + (self.times - 1) * self.last_epoch / self.length)
                    for base in self.base_lrs
                ]
            if self.after is None:
                return [base * self.times for base in self.base_lrs]
            if not self.handed:
                self.after.base_lrs = [base * self.times for base in self.base_lrs]
                self.handed = True
            return self.after.get_last_lr()

        def step(self, epoch=None):
            if not (self.handed and self.after):
                super().step(epoch)
            else:
                self.after.step(None if epoch is None else epoch - self.length)
                self._last_lr = self.after.get_last_lr()

    class GradualPlateau(m._LRScheduler):
        """The same around a plateau; it writes the groups itself, without a `get_lr`."""

        def __init__(self, optimizer, times, length, after):
            self.times, self.length, self.after = times, length, after
            super().__init__(optimizer)

        def step(self, measure=1.0):
            self.last_epoch += 1
            if self.last_epoch > self.length:
                self.after.step(measure)
                return
            for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
                group["lr"] = base * (1 + (self.times - 1) * self.last_epoch / self.length)

    class Restarts(m._LRScheduler):
        """Cosines with a warmup each; it replaces `base_lrs`, and steps by itself."""

        def __init__(self, optimizer, length, growth, high, low, rise):
            self.length, self.growth, self.high, self.low, self.rise = (
                length,
                growth,
                high,
                low,
                rise,
            )
            self.since = -1
            super().__init__(optimizer)
            self.base_lrs = []
            for group in self.optimizer.param_groups:
                group["lr"] = low
                self.base_lrs.append(low)

        def get_lr(self):
            if self.since < 0:
                return self.base_lrs
            if self.since < self.rise:
                return [b + (self.high - b) * self.since / self.rise for b in self.base_lrs]
            part = (self.since - self.rise) / (self.length - self.rise)
            return [b + (self.high - b) * (1 + math.cos(math.pi * part)) / 2 for b in self.base_lrs]

        def step(self, epoch=None):
            self.last_epoch += 1
            self.since += 1
            if self.since >= self.length:
                self.since -= self.length
                self.length = self.rise + int((self.length - self.rise) * self.growth)
            for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
                group["lr"] = lr

    class Rising(m._LRScheduler):
        """A warmup by iterations, beside a scheduler by epochs."""

        def __init__(self, optimizer, length, last_epoch=-1):
            self.length = length
            super().__init__(optimizer, last_epoch)

        def get_lr(self):
            return [base * self.last_epoch / (self.length + 1e-8) for base in self.base_lrs]

    class WritesBase(m.LRScheduler):
        def get_lr(self):
            if self.last_epoch % 7 == 6:
                self.base_lrs[0] *= 0.8
            return [base * 0.99**self.last_epoch for base in self.base_lrs]

    class FromBefore(m.LRScheduler):
        def get_lr(self):
            by = 1.0 if self._is_initial else 0.97
            return [group["lr"] * by for group in self.optimizer.param_groups]

    class FromInitial(m.LRScheduler):
        def get_lr(self):
            return [g["initial_lr"] * 0.98**self.last_epoch for g in self.optimizer.param_groups]

    class StepsInner(m.LRScheduler):
        """It steps another in its `get_lr`."""

        def __init__(self, optimizer, inner, length):
            self.inner, self.length = inner, length
            super().__init__(optimizer)

        def get_lr(self):
            if self.last_epoch < self.length:
                return [base * (self.last_epoch + 1) / self.length for base in self.base_lrs]
            self.inner.step()
            return self.inner.get_last_lr()

    class Scales(m.LRScheduler):
        """It steps another in its `step`, and scales what that says."""

        def __init__(self, optimizer, inner, length):
            self.inner, self.length = inner, length
            super().__init__(optimizer)

        def get_lr(self):
            part = min(1.0, (self.last_epoch + 1) / (self.length + 1))
            return [part * lr for lr in self.inner.get_last_lr()]

        def step(self, *args):
            if self.last_epoch >= self.length:
                self.inner.step(*args)
            super().step()

    class HandsOver(m.LRScheduler):
        """It ends below the base, and leaves the rest to another."""

        def __init__(self, optimizer, inner, length):
            self.inner, self.length = inner, length
            super().__init__(optimizer)

        def get_lr(self):
            return [base * self.last_epoch / self.length for base in self.base_lrs]

        def step(self, epoch=None):
            if self.last_epoch < self.length - 1:
                super().step(epoch)
            else:
                self.last_epoch += 1
                self.inner.step()

    class WritesFirst(m.LRScheduler):
        """It writes the groups itself, ends below the base, and leaves the rest to another."""

        def __init__(self, optimizer, inner, length):
            self.inner, self.length, self.count = inner, length, -1
            super().__init__(optimizer)

        def step(self, epoch=None):
            self.count += 1
            if self.count >= self.length:
                self.inner.step()
                return
            for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
                group["lr"] = base * (self.count + 0.5) / self.length

    class Follows(m.LRScheduler):
        """Half of what another scheduler says, of this optimizer or of another one."""

        def __init__(self, optimizer, other):
            self.other = other
            super().__init__(optimizer)

        def get_lr(self):
            return [0.5 * lr for lr in self.other.get_last_lr()]

        def step(self, epoch=None):
            if not self._is_initial:
                self.other.step()
            super().step()

    class Writes(m.LRScheduler):
        """It has a `step` and nothing else."""

        def __init__(self, optimizer):
            self.count = 0
            super().__init__(optimizer)

        def step(self, epoch=None):
            self.count += 1
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * 0.9**self.count

    class Bare(m.LRScheduler):
        """It leaves `super().__init__` out."""

        def __init__(self, optimizer):
            self.optimizer, self.count = optimizer, 0
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])

        def step(self, epoch=None):
            self.count += 1
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] / (1 + self.count)

    found = {name: one for name, one in locals().items() if isinstance(one, type)}
    return SimpleNamespace(**found)


INNER = {
    "StepLR": lambda m, o: m.StepLR(o, 5, 0.5),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [5, 9, 30]),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.95),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 40),
    "CosineAnnealingLR, eta_min": lambda m, o: m.CosineAnnealingLR(o, 40, 0.001),
    "CosineAnnealingWarmRestarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 7, 2),
    "LambdaLR": lambda m, o: m.LambdaLR(o, lambda epoch: 0.95**epoch),
    "MultiplicativeLR": lambda m, o: m.MultiplicativeLR(o, lambda epoch: 0.96 + 0.02 * (epoch % 2)),
    "LinearLR, down": lambda m, o: m.LinearLR(o, 1.0, 0.1, 20),
    "LinearLR, up": lambda m, o: m.LinearLR(o, 0.2, 1.0, 20),
    "ConstantLR": lambda m, o: m.ConstantLR(o, 0.5, 6),
    "PolynomialLR": lambda m, o: m.PolynomialLR(o, 40),
    "CyclicLR": lambda m, o: m.CyclicLR(o, 0.01, 0.1, 5, cycle_momentum=False),
}
"""What the others stand around."""

EXTENDED = {
    **{name: build for name, build in INNER.items() if name not in ("LinearLR, down", "CyclicLR")},
    "CyclicLR": lambda m, o: m.CyclicLR(o, 0.01, 0.1, 5),
    "OneCycleLR": lambda m, o: m.OneCycleLR(o, 0.2, 400),
}
"""What is extended by a `get_lr` that asks the one it overrides."""

CHANGES = {
    "as it is": lambda scheduler, lrs: lrs,
    "a little less": lambda scheduler, lrs: [0.95 * float(lr) for lr in lrs],
    "a floor": lambda scheduler, lrs: [max(float(lr), 0.02) for lr in lrs],
    "warmed up": lambda scheduler, lrs: (
        [base * (scheduler.last_epoch + 1) / 8 for base in scheduler.base_lrs]
        if scheduler.last_epoch < 5
        else lrs
    ),
}


def extended(m, name, change):
    """A function from an optimizer to a scheduler of a subclass of a class of the module."""
    made = []

    def build(optimizer):
        if not made:
            cls = type(
                EXTENDED[name](
                    m, optimizer.__class__([*optimizer.param_groups[0]["params"]], 0.1, 0.9)
                )
            )

            class Changed(cls):
                def get_lr(self):
                    return CHANGES[change](self, super().get_lr())

            made.append(Changed)
        proxy = SimpleNamespace(**{made[0].__mro__[1].__name__: made[0]})
        return EXTENDED[name](proxy, optimizer)

    return build
