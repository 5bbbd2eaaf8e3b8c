"""Every optimizer learns real digits at its default lr: `python benchmarks/convergence.py`."""

import pytest
import torch

from convergence import ENOUGH, PLANS, as_words, learn
from descend.optimizers import CATALOGUE
from descend.training import digits_task


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOGUE)
def test_digits_are_learnt_to_95_percent_at_the_default_lr(name):
    assert learn(name).accuracy >= ENOUGH


def test_every_exception_is_of_the_catalogue_and_has_a_reason():
    assert set(PLANS) <= set(CATALOGUE)
    assert all(plan.why for plan in PLANS.values())


def test_the_words_of_an_image_tell_each_of_its_pixels():
    pixels, words = digits_task(), as_words(digits_task())
    images, numbers = pixels.test[0].flatten(1), words.test[0]
    assert numbers.shape == images.shape
    assert 0 <= numbers.min() <= numbers.max() < words.model.num_embeddings
    levels = torch.unique(pixels.train[0])
    assert torch.equal(levels[numbers % len(levels)], images)
    assert torch.equal(numbers // len(levels), torch.arange(64).expand_as(numbers))
