"""Averaged models by the names of torch.optim.swa_utils."""
