"""The fixtures of these tests."""

from bench.stand_ins import catalogue, own_rule  # noqa: F401 - fixtures
