"""Ranking losses as plain loops over one list in float64: the oracles of the fast ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

List = Sequence[float]


def softplus(x: float) -> float:
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def softmax(values: List) -> list[float]:
    high = max(values)
    parts = [math.exp(v - high) for v in values]
    return [p / sum(parts) for p in parts]


def lse(values: List) -> float:
    high = max(values)
    return high + math.log(sum(math.exp(v - high) for v in values))


def ranks(scores: List, labels: List) -> list[float]:
    """By score, the less relevant first among equals; what is equal in both shares its ranks."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], labels[i]))
    found = [0.0] * len(scores)
    place = 1
    for _, same in groupby(order, key=lambda i: (scores[i], labels[i])):
        level = list(same)
        for i in level:
            found[i] = place + (len(level) - 1) / 2
        place += len(level)
    return found


def pairwise(
    s: List, y: List, weight: Callable[[int, int], float], mean: bool, sigma: float = 1
) -> float:
    total, pairs = 0.0, 0
    for i in range(len(s)):
        for j in range(len(s)):
            if y[i] > y[j]:
                total += weight(i, j) * softplus(-sigma * (s[i] - s[j]))
                pairs += 1
    return total / max(pairs, 1) if mean else total


def rank_net(s: List, y: List, mean: bool = True, sigma: float = 1) -> float:
    return pairwise(s, y, lambda i, j: 1, mean, sigma)


def first(s: List, y: List, mean: bool = True) -> float:
    r = ranks(y, [0.0] * len(y))
    return pairwise(s, y, lambda i, j: 1 / (r[i] + r[j]), mean)


def lipo(s: List, y: List) -> float:
    t = ranks(s, y)
    return pairwise(
        s,
        y,
        lambda i, j: (
            abs(2 ** y[i] - 2 ** y[j]) * abs(1 / math.log(1 + t[i]) - 1 / math.log(1 + t[j]))
        ),
        False,
    )


def lambda_loss(
    s: List, y: List, weighting: str, k: int | None = None, mu: float = 10, sigma: float = 1
) -> float:
    n, r = len(s), ranks(s, y)
    gain = [2 ** max(g, 0) - 1 for g in y]
    best = sum(g / math.log2(2 + i) for i, g in enumerate(sorted(gain, reverse=True)[:k]))
    gain = [g / best if best else 0 for g in gain]
    if len(set(y)) < 2:
        return 0.0
    total = 0.0
    for i in range(n):
        for j in range(n):
            if i == j or (k is not None and r[i] > k and r[j] > k):
                continue
            loss = softplus(-sigma * (s[i] - s[j]))
            if weighting == "NDCGLoss1":
                total += gain[i] / math.log2(1 + r[i]) * loss
            elif y[i] > y[j]:
                swapped = abs(1 / math.log2(1 + r[i]) - 1 / math.log2(1 + r[j]))
                far = abs(r[i] - r[j])
                moved = 1 / math.log2(1 + far) - 1 / math.log2(2 + far)
                part = {
                    "LambdaRank": swapped,
                    "NDCGLoss2": moved,
                    "NDCGLoss2++": swapped + mu * moved,
                }
                total += part[weighting] * abs(gain[i] - gain[j]) * loss
    return total


def list_net(s: List, y: List) -> float:
    if len(set(y)) < 2:
        return 0.0
    return -sum(p * (one - lse(s)) for p, one in zip(softmax(y), s, strict=True))


def plackett_luce(s: List, keys: Sequence[tuple[float, ...]], weights: List) -> float:
    """Draws by falling key, from all that are not better; the lowest key is not drawn."""
    if not s:
        return 0.0
    total = 0.0
    for i, key in enumerate(keys):
        if key > min(keys):
            left = [s[j] for j in range(len(s)) if keys[j] <= key]
            total += weights[i] * (lse(left) - s[i])
    return total


def list_mle(s: List, y: List) -> float:
    return plackett_luce(s, [(g,) for g in y], [1.0] * len(s))


def plist_mle(s: List, y: List) -> float:
    n = len(s)
    by_place = [2.0 ** (n - k) - 1 for k in range(1, n + 1)]
    whole = sum(by_place) or 1.0
    order = sorted(range(n), key=lambda i: -y[i])
    weights = [0.0] * n
    place = 0
    for _, same in groupby(order, key=lambda i: y[i]):
        level = list(same)
        mean = sum(by_place[place : place + len(level)]) / len(level)
        for i in level:
            weights[i] = mean / whole
        place += len(level)
    return plackett_luce(s, [(g,) for g in y], weights)


def pld(s: List, y: List, t: List, temperature: float = 1) -> float:
    gold = [float(g == max(y)) for g in y]
    keys = list(zip(gold, t, strict=True))
    return plackett_luce(s, keys, softmax([x / temperature for x in t]))


def bce(s: List, y: List, threshold: float | None = None, weight: float = 1) -> float:
    if threshold is not None:
        y = [float(g >= threshold) for g in y]
    parts = [weight * g * softplus(-x) + (1 - g) * softplus(x) for x, g in zip(s, y, strict=True)]
    return sum(parts) / len(parts)


def info_nce(s: List, y: List, temperature: float = 1) -> float:
    s = [x / temperature for x in s]
    good = [x for x, g in zip(s, y, strict=True) if g > 0]
    bad = [x for x, g in zip(s, y, strict=True) if not g > 0]
    if not good or not bad:
        return 0.0
    return sum(lse([x, *bad]) - x for x in good) / len(good)
