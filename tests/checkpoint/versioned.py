"""A module that has changed the format of its state."""

import torch


class Versioned(torch.nn.Module):
    """Its second version turned its weight around."""

    _version = 2

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(3.0))

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        if local_metadata.get("version", 1) < 2:
            state_dict[prefix + "weight"] = state_dict[prefix + "weight"].flip(0)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
