"""What initialisers share: asking the source for what it holds."""
from __future__ import annotations

from ..errors import WiringError
from ..recipe import LayerContext


def held(context: LayerContext, part: str, kind: str):
    """The source's `part` for this layer: a field of :class:`wiring_plugins.statistics.types.LayerStatistics`.

    Raises:
        WiringError: the recipe names no source, or the source does not hold that.
    """
    found = getattr(context.statistics, part, None)
    if found is None:
        raise WiringError(f"Initialiser {kind!r} of layer {context.layer} needs a source that holds {part!r} for it. "
                          f"Name one in the recipe, such as Init({kind!r}, source='googlenet'); "
                          "`wiring statistics show SOURCE` says what a source holds.")
    return found


def numbers_of(part: str, kind: str):
    """An initialiser's `numbers` function where it needs all of the source's `part` and nothing else."""
    def numbers(shape: tuple[int, ...], context: LayerContext, **params) -> int:
        return held(context, part, kind).numbers()
    return numbers
