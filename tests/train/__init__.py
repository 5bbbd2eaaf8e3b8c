"""Tests of `descend train` and of what it is made of."""
