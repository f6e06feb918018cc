"""From the attention that query rows pay to tokens, to one score per document.

Chen, Gutiérrez and Su, "Attention in Large Language Models Yields Efficient Zero-Shot Re-Rankers"
(in-context reranking, ICR), ICLR 2025, arXiv 2410.02642. With s_t(q) the attention to token t,
summed over heads and averaged over the query's rows:

1. δ_t = s_t(q) − s_t("N/A"): what the query adds to what a void query looks at (calibration).
2. K_d = {t in d: δ_t > mean_d(δ) − σ·std_d(δ)}, σ = 2, std with n − 1: abnormally low tokens go.
3. score(d) = Σ_{t in K_d} δ_t.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VOID_QUERY = "N/A"
"""The query of the calibration prompt."""


def kept_tokens(deltas: NDArray[np.float64], sigma: float | None) -> NDArray[np.bool_]:
    """Which tokens of one document count: all but the abnormally low.

    A document of one token, and one whose tokens are all alike, keep every token: there is no
    deviation that any could be beyond. With ``sigma=2`` nothing can go from a document of five
    tokens or fewer, since no value lies further than (n − 1)/√n deviations from the mean.

    Args:
        deltas: Calibrated attention to the document's tokens, float64 ``(..., n)``; each row is
            filtered by itself.
        sigma: Standard deviations below the mean from which a token is dropped; None keeps all.

    Returns:
        bool, of the same shape.
    """
    n = deltas.shape[-1]
    if sigma is None or n < 2:
        return np.ones(deltas.shape, np.bool_)
    std = deltas.std(axis=-1, ddof=1, keepdims=True)
    # Not "greater": with a deviation of 0 that would drop every token.
    low = (deltas <= deltas.mean(axis=-1, keepdims=True) - sigma * std) & (std > 0)
    return np.asarray(~low)


def document_scores(
    deltas: NDArray[np.float64], spans: NDArray[np.int64], sigma: float | None
) -> NDArray[np.float64]:
    """The score of each document: the sum over its tokens that are not abnormally low.

    Args:
        deltas: Calibrated attention to all tokens of the prompt, float64 ``(..., tokens)``.
        spans: First token of each document and the one behind its last, int64 ``(docs, 2)``.
        sigma: See `kept_tokens`.

    Returns:
        float64 ``(..., docs)``.
    """
    out = np.empty((*deltas.shape[:-1], len(spans)), np.float64)
    for place, (start, stop) in enumerate(spans.tolist()):
        own = deltas[..., start:stop]
        out[..., place] = np.where(kept_tokens(own, sigma), own, 0.0).sum(axis=-1)
    return out
