"""Comparisons over seeds: who belongs together, and when a difference counts."""
from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("brainscore_vision", reason="needs brainscore-vision, which runs on Python 3.11 only")

from wiring_plugins import WiringError, families  # noqa: E402
from wiring_submission import compare, results  # noqa: E402
from wiring_submission.offline import BENCHMARKS  # noqa: E402
from wiring_submission.scoring import BenchmarkScore  # noqa: E402
from wiring_submission.subjects import Subject  # noqa: E402


def test_families_are_recipes_that_differ_by_their_seed_alone(registry):
    kaiming = registry.recipe("wiring-kaiming")
    other = replace(kaiming, name="other", trainable=("decoder",))
    groups = families([other, replace(kaiming, name="b", seed=9), kaiming, replace(kaiming, name="a", seed=3)])
    assert [[recipe.name for recipe in group] for group in groups] == [["other"], ["wiring-kaiming", "a", "b"]]


@pytest.mark.parametrize("one, other, exceeds", [
    ((0.5, 0.6), (0.7, 0.8), True), ((0.7, 0.8), (0.5, 0.6), True), ((0.5, 0.7), (0.6, 0.8), False),
    ((0.5, 0.6), (0.6, 0.8), False), ((0.4, 0.9), (0.5, 0.6), False)])
def test_a_difference_counts_when_the_ranges_do_not_overlap(one, other, exceeds):
    assert compare.exceeds_spread(one, other) is exceeds


def store(path, *scores):
    """Store (model, seed, score), the score being that of every offline benchmark."""
    run = results.start_run([path], "key")
    for model, seed, score in scores:
        subject = Subject(name=model, identifier=model, fresh=None, seed=seed, weights="untrained")
        for benchmark in BENCHMARKS:
            results.store(path, run, subject, seed, BenchmarkScore(benchmark=benchmark, score=score, seconds=0.0), {})


def test_the_table_says_what_is_larger_than_the_spread(tmp_path, capsys):
    path = tmp_path / "s.sqlite"
    store(path, ("wiring-kaiming", 0, 0.50), ("wiring-kaiming-seed42", 42, 0.60), ("wiring-wc", 0, 0.55),
          ("wiring-gabor-frozen", 0, 0.70), ("wiring-gabor-frozen-seed42", 42, 0.80),
          ("wiring-gabor-frozen", 7, 0.10))  # by `--seed 7`: another model than the recipe's
    compare.run(["wiring-kaiming", "wiring-gabor-frozen"], path)
    table = capsys.readouterr().out
    assert "| `wiring-kaiming` | 0, 42 | **0.550 ± 0.071** |" in table
    assert "mean +0.200, larger than the spread" in table
    with pytest.raises(WiringError, match="of 1 seeds of 'wiring-wc'"):
        compare.run(["wiring-kaiming", "wiring-wc"], path)


def test_what_stands_after_an_at_holds_for_every_seed(tmp_path, capsys):
    path = tmp_path / "s.sqlite"
    store(path, ("wiring-wc", 0, 0.5), ("wiring-wc-seed42", 42, 0.5),
          ("wiring-wc@wiring-up-vision", 0, 0.6), ("wiring-wc-seed94@wiring-up-vision", 94, 0.7))
    compare.run(["wiring-wc", "wiring-wc@wiring-up-vision"], path)
    assert "| `wiring-wc@wiring-up-vision` | 0, 94 | **0.650 ± 0.071** |" in capsys.readouterr().out
    with pytest.raises(WiringError, match="of 0 seeds of .*Score wiring-wc@birth, wiring-wc-seed42@birth"):
        compare.run(["wiring-wc@birth"], path)
    (tmp_path / "trained.pth").touch()
    with pytest.raises(WiringError, match="the weights of one training"):
        compare.run([f"wiring-wc@{tmp_path}/trained.pth"], path)
