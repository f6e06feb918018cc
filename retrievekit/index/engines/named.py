"""From an engine's name to the engine."""

from __future__ import annotations

from retrievekit import registry
from retrievekit.index.engines.faiss import FaissEngine
from retrievekit.protocols import Engine, Similarity


def engine_named(name: str, dim: int, similarity: Similarity) -> Engine:
    """The engine of a name: a registered one, or what FAISS makes of it.

    Args:
        name: Such as ``binary``, or a FAISS factory string; ``flat`` is no engine that proposes.
        dim: Components of each vector.
        similarity: How vectors are compared.

    Returns:
        The engine.
    """
    if name in registry.names("engine"):
        made: Engine = registry.resolve("engine", name)(dim, similarity)
        return made
    return FaissEngine(name, dim, similarity)
