"""Small tasks in files, as users write them, for the tests of comparisons and searches."""

import textwrap

SMALL = """
    import torch, descend

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(160, 4, generator=generator)
    y = x.sum(1, keepdim=True) + 0.3 * torch.randn(160, 1, generator=generator)

    task = descend.Task(
        model=torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1)
        ),
        train=(x[:96], y[:96]),
        validation=(x[96:], y[96:]),
        loss=torch.nn.functional.mse_loss,
        metrics={"mae": torch.nn.functional.l1_loss},
        batch_size=12,
        epochs=4,
    )
"""

RULES = """
    from descend.rules import LearningRate, Optimizer, Params, Rule
    import descend

    def update(param, grad, *, lr):
        return (param,)

    class Nothing(Optimizer):
        rule = Rule(update)

        def __init__(self, params: Params, lr: LearningRate = 0.1) -> None:
            super().__init__(params, locals())

    class Same(descend.AdamW):
        pass

    class Zero(Nothing):
        def __init__(self, params: Params, lr: LearningRate = 0.0) -> None:
            super().__init__(params, lr)
"""


def written(folder, name, text):
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path
