"""The next character of a play, by a transformer of one block."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

import descend
from descend.search.suite.data import load_plays

CONTEXT = 32  # characters
WIDTH, HEADS = 48, 2


class CharacterModel(nn.Module):
    """Scores for the character after each one of a text."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(characters, WIDTH)
        self.places = nn.Embedding(CONTEXT, WIDTH)
        for table in (self.characters, self.places):
            nn.init.normal_(table.weight, std=0.02)
        self.before_attention, self.before_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.mixed = nn.Linear(WIDTH, WIDTH, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )
        self.scores = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, characters))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """From (rows, CONTEXT) characters to scores of shape (rows, CONTEXT, characters)."""
        x = self.characters(text) + self.places.weight
        heads = self.attention(self.before_attention(x)).unflatten(-1, (3, HEADS, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mixed(seen.transpose(1, 2).flatten(2))
        scores: torch.Tensor = self.scores(x + self.mlp(self.before_mlp(x)))
        return scores


def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean over all characters of all rows, in nats."""
    return cross_entropy(outputs.flatten(0, 1), targets.flatten())


def rows(text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A text in rows, and beside each character the next one."""
    end = (len(text) - 1) // CONTEXT * CONTEXT
    return text[:end].view(-1, CONTEXT), text[1 : end + 1].view(-1, CONTEXT)


def task() -> descend.Task:
    """Learn 310,000 characters; the 20,000 after them are for validation."""
    letters = torch.frombuffer(bytearray(load_plays()), dtype=torch.uint8)
    alphabet, text = torch.unique(letters, return_inverse=True)
    return descend.Task(
        model=CharacterModel(len(alphabet)),
        train=rows(text[:-20_000]),
        validation=rows(text[-20_000:]),
        loss=loss,
        batch_size=16,
        epochs=3,
    )
