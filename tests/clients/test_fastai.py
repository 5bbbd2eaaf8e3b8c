"""fastai: a Learner with OptimWrapper around an optimizer, its one-cycle policy and callbacks."""

import pytest
import torch

from clients.beside import CLOSE, CLOSE_16, assert_beside, network, parameters, samples


@pytest.fixture
def fastai(client):
    pytest.importorskip("torchvision", reason="fastai needs torchvision, which goes with one torch")
    for name in ("fastai.learner", "fastai.callback.all", "fastai.data.all"):
        client(name)
    return client("fastai.basics")


def learner(fastai, optim, kind="AdamW", callbacks=(), built=False, **options):
    """A Learner whose optimizer is made by fastai, or built before it (`built`)."""
    loader = fastai.DataLoader(samples(), bs=4, shuffle=False)
    loaders = fastai.DataLoaders(loader, loader, device=torch.device("cpu"))
    model = network()
    cls = getattr(optim, kind)

    def make(params, **kwargs):
        if built:
            return fastai.OptimWrapper(opt=cls(model.parameters(), lr=0.03, **options))
        return fastai.OptimWrapper(params, cls, **kwargs, **options)

    learn = fastai.Learner(
        loaders, model, torch.nn.functional.mse_loss, opt_func=make, lr=0.03, cbs=list(callbacks)
    )
    learn.remove_cbs(learn.cbs.filter(lambda one: type(one).__name__ == "ProgressCallback"))
    return learn


def fitted(learn, way="fit", *arguments, **options):
    with learn.no_logging():
        getattr(learn, way)(*arguments, **options)
    recorder = learn.recorder
    return [float(loss) for loss in recorder.losses], recorder.lrs, parameters(learn.model)


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("kind", ["AdamW", "SGD", "RMSprop"])
def test_fitted(fastai, kind, built):
    assert_beside(lambda optim: fitted(learner(fastai, optim, kind, built=built), "fit", 3, 0.02))


def test_clipped_and_accumulated(fastai, client):
    training = client("fastai.callback.training")

    def train(optim):
        cbs = [training.GradientClip(0.5), training.GradientAccumulation(8)]
        return fitted(learner(fastai, optim, callbacks=cbs), "fit", 3)

    assert_beside(train)


def test_one_cycle(fastai):
    """lr and beta1 move in every step."""

    def train(optim):
        learn = learner(fastai, optim, betas=(0.9, 0.99))
        return fitted(learn, "fit_one_cycle", 3, 0.05)

    assert_beside(train)


def test_layers_are_frozen_and_thawed(fastai):
    def train(optim):
        learn = learner(fastai, optim)
        learn.splitter = lambda model: [list(model[0].parameters()), list(model[2].parameters())]
        learn.freeze()
        first = fitted(learn, "fit", 1)
        learn.unfreeze()
        return first, fitted(learn, "fit", 2, slice(1e-3, 1e-2))

    assert_beside(train)


def test_in_mixed_precision(fastai):
    """By a callback of one's own: fastai's are for GPUs only."""

    class Autocast(fastai.Callback):
        def before_batch(self):
            self.context = torch.autocast("cpu", torch.bfloat16)
            self.context.__enter__()

        def after_loss(self):
            self.context.__exit__(None, None, None)

    def train(optim):
        return fitted(learner(fastai, optim, callbacks=[Autocast()]), "fit", 3)

    assert_beside(train, **CLOSE_16)


def test_resumed_from_its_own_checkpoint(fastai, tmp_path):
    def train(optim):
        whole = learner(fastai, optim)
        losses = fitted(whole, "fit", 2)[0] + fitted(whole, "fit", 1)[0]
        first = learner(fastai, optim)
        fitted(first, "fit", 2)
        path = tmp_path / optim.__name__
        first.save(path)
        second = learner(fastai, optim)
        second.create_opt()
        second.load(path)
        assert fitted(second, "fit", 1)[0] == losses[12:]
        return losses, parameters(second.model)

    assert_beside(train, **CLOSE)


def test_the_learning_rate_finder(fastai):
    def train(optim):
        learn = learner(fastai, optim)
        found = learn.lr_find(num_it=20, show_plot=False)
        return found.valley, parameters(learn.model)

    assert_beside(train, rtol=1e-3, atol=1e-5)
