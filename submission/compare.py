"""`wiring compare`: models over their seeds, and which differences are larger than the spread over seeds."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wiring_plugins import Recipe, Registry, WiringError, families, load_registry, resolve

from . import results
from .offline import BENCHMARKS as OFFLINE


@dataclass(frozen=True, kw_only=True)
class SeedScores:
    """One model's scores. means: over the benchmarks, for each seed. by_benchmark: benchmark -> score of each seed."""

    name: str
    seeds: tuple[int, ...]
    means: tuple[float, ...]
    by_benchmark: dict[str, tuple[float, ...]]


def exceeds_spread(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether every score of one model is above every score of the other: their ranges over seeds do not overlap.

    With three seeds each, this happens by chance to equal models in one case of ten.
    """
    return min(one) > max(other) or min(other) > max(one)


def run(models: list[str], db: Path | None) -> None:
    """Print a Markdown table of the models and their differences from the first.

    Raises:
        WiringError: a model has not been scored with at least two seeds on all offline benchmarks.
    """
    registry = load_registry()
    path = db or results.database_for(OFFLINE[0], None)
    stored = {(row.model, row.seed, row.benchmark): row.score for row in results.newest(path, seeds=True)}
    print(_markdown([_of_all_seeds(name, _in_all_seeds(name, registry), stored, path) for name in models]))


def _in_all_seeds(name: str, registry: Registry) -> list[Recipe]:
    """The recipe of that name under each of its seeds; what stands after an `@` holds for all of them.

    Raises:
        WiringError: the name is of one training's weights, which have no other seed.
    """
    asked = resolve(name, registry)
    base, at, variant = name.partition("@")
    if at and asked.weights.kind != "generated":
        raise WiringError(f"{name!r} has the weights of one training, and a spread needs several. Score it with "
                          "`brainscore score`, and see `wiring scores`.")
    siblings = next(group for group in families(registry.recipes.values()) if registry.recipe(base) in group)
    return [resolve(f"{recipe.name}{at}{variant}", registry) for recipe in siblings]


def _of_all_seeds(name: str, family: list[Recipe], stored: dict, path: Path) -> SeedScores:
    complete = [recipe for recipe in family if all((recipe.name, recipe.seed, benchmark) in stored for benchmark in OFFLINE)]
    if len(complete) < 2:
        raise WiringError(f"{path} holds all seven offline scores of {len(complete)} seeds of {name!r}, and a spread needs two "
                          f"or more. Score {', '.join(recipe.name for recipe in family)} first.")
    by_benchmark = {benchmark: tuple(stored[recipe.name, recipe.seed, benchmark] for recipe in complete)
                    for benchmark in OFFLINE}
    means = tuple(sum(seed) / len(seed) for seed in zip(*by_benchmark.values()))
    return SeedScores(name=name, seeds=tuple(recipe.seed for recipe in complete), means=means, by_benchmark=by_benchmark)


def _markdown(scores: list[SeedScores]) -> str:
    first = scores[0]
    short = [benchmark.rpartition("-")[2] for benchmark in OFFLINE]
    lines = ["| model | seeds | mean | " + " | ".join(short) + f" | against {first.name} |",
             "|---|---|---|" + "---|" * len(short) + "---|"]
    for model in scores:
        cells = [_spread(model.by_benchmark[benchmark]) for benchmark in OFFLINE]
        lines.append(f"| `{model.name}` | {', '.join(map(str, model.seeds))} | **{_spread(model.means)}** | "
                     f"{' | '.join(cells)} | {_difference(model, first)} |")
    return "\n".join(lines)


def _spread(values: tuple[float, ...]) -> str:
    mean = sum(values) / len(values)
    return f"{mean:.3f} ± {(sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** .5:.3f}"


def _difference(model: SeedScores, first: SeedScores) -> str:
    if model is first:
        return "–"
    clear = [f"{benchmark.rpartition('-')[2]} {_signed(model.by_benchmark[benchmark], first.by_benchmark[benchmark])}"
             for benchmark in OFFLINE if exceeds_spread(model.by_benchmark[benchmark], first.by_benchmark[benchmark])]
    mean = f"mean {_signed(model.means, first.means)}"
    verdict = f"{mean}, larger than the spread" if exceeds_spread(model.means, first.means) else f"{mean}, within the spread"
    return verdict + (f"; clear on {', '.join(clear)}" if clear else "")


def _signed(one: tuple[float, ...], other: tuple[float, ...]) -> str:
    return f"{sum(one) / len(one) - sum(other) / len(other):+.3f}"
