"""Feedback by name, for expressions and configurations: plain values first, the index last."""

from __future__ import annotations

from typing import Any

from retrievekit.feedback.divergence import KL, Bo1
from retrievekit.feedback.terms import RM3, LexicalRocchio
from retrievekit.feedback.vectors import Average, Rocchio


def average(docs: int = 3, *, quantised: bool = False, index: Any) -> Average:
    """`Average` over the vectors of an index.

    Args:
        docs: As in `Average`.
        quantised: As in `Average`.
        index: As in `Average`.

    Returns:
        The stage.
    """
    return Average(index, docs, quantised=quantised)


def rocchio(
    docs: int = 5,
    alpha: float = 0.4,
    beta: float = 0.6,
    gamma: float = 0.1,
    negatives: int = 0,
    *,
    terms: int | None = None,
    quantised: bool = False,
    index: Any,
) -> Rocchio:
    """`Rocchio` over the vectors of an index.

    Args:
        docs: As in `Rocchio`.
        alpha: As in `Rocchio`.
        beta: As in `Rocchio`.
        gamma: As in `Rocchio`.
        negatives: As in `Rocchio`.
        terms: As in `Rocchio`.
        quantised: As in `Rocchio`.
        index: As in `Rocchio`.

    Returns:
        The stage.
    """
    return Rocchio(index, docs, alpha, beta, gamma, negatives, terms, quantised=quantised)


def rm3(
    fb_terms: int = 10,
    fb_docs: int = 10,
    original_query_weight: float = 0.5,
    *,
    filter_terms: bool = True,
    max_df: float = 0.1,
    index: Any,
) -> RM3:
    """`RM3` over the terms of an index.

    Args:
        fb_terms: As in `RM3`.
        fb_docs: As in `RM3`.
        original_query_weight: As in `RM3`.
        filter_terms: As in `RM3`.
        max_df: As in `RM3`.
        index: As in `RM3`.

    Returns:
        The stage.
    """
    return RM3(
        index,
        fb_terms=fb_terms,
        fb_docs=fb_docs,
        original_query_weight=original_query_weight,
        filter_terms=filter_terms,
        max_df=max_df,
    )


def lexical_rocchio(
    fb_terms: int = 10,
    fb_docs: int = 10,
    alpha: float = 1.0,
    beta: float = 0.75,
    gamma: float = 0.0,
    *,
    bottom_fb_terms: int = 10,
    bottom_fb_docs: int = 10,
    max_df: float = 0.1,
    index: Any,
) -> LexicalRocchio:
    """`LexicalRocchio` over the terms of an index.

    Args:
        fb_terms: As in `LexicalRocchio`.
        fb_docs: As in `LexicalRocchio`.
        alpha: As in `LexicalRocchio`.
        beta: As in `LexicalRocchio`.
        gamma: As in `LexicalRocchio`.
        bottom_fb_terms: As in `LexicalRocchio`.
        bottom_fb_docs: As in `LexicalRocchio`.
        max_df: As in `LexicalRocchio`.
        index: As in `LexicalRocchio`.

    Returns:
        The stage.
    """
    return LexicalRocchio(
        index,
        fb_terms=fb_terms,
        fb_docs=fb_docs,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        bottom_fb_terms=bottom_fb_terms,
        bottom_fb_docs=bottom_fb_docs,
        max_df=max_df,
    )


def bo1(fb_terms: int = 10, fb_docs: int = 3, beta: float = 0.4, *, index: Any) -> Bo1:
    """`Bo1` over the terms of an index.

    Args:
        fb_terms: As in `Bo1`.
        fb_docs: As in `Bo1`.
        beta: As in `Bo1`.
        index: As in `Bo1`.

    Returns:
        The stage.
    """
    return Bo1(index, fb_terms, fb_docs, beta)


def kl(fb_terms: int = 10, fb_docs: int = 3, beta: float = 0.4, *, index: Any) -> KL:
    """`KL` over the terms of an index.

    Args:
        fb_terms: As in `KL`.
        fb_docs: As in `KL`.
        beta: As in `KL`.
        index: As in `KL`.

    Returns:
        The stage.
    """
    return KL(index, fb_terms, fb_docs, beta)
