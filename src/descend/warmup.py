"""Warmups by the names of pytorch_warmup."""
