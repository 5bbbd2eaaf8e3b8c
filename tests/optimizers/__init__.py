"""Tests of the update rules, their state, and the way they step."""
