"""Hamming distances of packed bits: which rows are nearest, by exclusive or and population count.

Codes are rows of 64-bit words. The words of several queries lie side by side, so that one register
holds one word of each of them, and processors that count bits in vectors (AVX512-VPOPCNTDQ) look at
eight queries in three instructions per word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils as untyped
from numba.extending import intrinsic
from numpy.typing import NDArray

from retrievekit.kernels.compiling import compiled

cgutils: Any = untyped
ir: Any = cgutils.ir

LANES = 16
"""Queries whose distances to one row are computed together."""


def _nearer_code(
    _: Any, queries: Any, group: Any, codes: Any, row: Any, bounds: Any, distances: Any
) -> tuple[Any, Callable[..., Any]]:
    """A bit for each lane whose distance is below its bound; the distances, if there is any.

    Written for LLVM by hand, because the sums must stay in registers: loops over lanes, as numba
    would hand them over, are unrolled into single words, and slices of arrays are counted.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        lanes = ir.VectorType(word, LANES)
        mask = ir.IntType(LANES)
        ones = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(lanes, [lanes]), f"llvm.ctpop.v{LANES}i64"
        )

        def array(place: int) -> Any:
            return context.make_array(signature.args[place])(context, builder, arguments[place])

        def data(place: int, start: Any, of: Any) -> Any:
            return builder.bitcast(builder.gep(array(place).data, [start]), of.as_pointer())

        group, row = arguments[1], arguments[3]
        words = builder.extract_value(array(2).shape, 1)
        width = ir.Constant(word, LANES)
        first = builder.mul(group, width)
        columns = data(0, builder.mul(first, words), lanes)
        code = data(2, builder.mul(row, words), word)
        sums = cgutils.alloca_once_value(builder, ir.Constant(lanes, None))
        with cgutils.for_range(builder, words) as loop:
            column = builder.load(builder.gep(columns, [loop.index]), align=8)
            one = builder.insert_element(
                ir.Constant(lanes, ir.Undefined),
                builder.load(builder.gep(code, [loop.index]), align=8),
                ir.Constant(ir.IntType(32), 0),
            )
            same = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
            all_lanes = builder.shuffle_vector(one, ir.Constant(lanes, ir.Undefined), same)
            differing = builder.call(ones, [builder.xor(column, all_lanes)])
            builder.store(builder.add(builder.load(sums), differing), sums)
        total = builder.load(sums)
        below = builder.icmp_signed("<", total, builder.load(data(4, first, lanes), align=8))
        bits = builder.bitcast(below, mask)
        with builder.if_then(builder.icmp_unsigned("!=", bits, ir.Constant(mask, 0)), likely=False):
            builder.store(total, data(5, ir.Constant(word, 0), lanes), align=8)
        return builder.zext(bits, word)

    signature = types.int64(queries, types.int64, codes, types.int64, bounds, distances)
    return signature, generate


_nearer: Any = intrinsic(_nearer_code)


@compiled
def pack_signs(vectors: NDArray[np.float32], codes: NDArray[np.uint64]) -> None:
    """Write for each component whether it is above 0, the first in the lowest bit.

    Args:
        vectors: float32 ``(n, d)``.
        codes: uint64 ``(n, words)`` with ``64 * words >= d``, written; spare bits are 0.
    """
    d = vectors.shape[1]
    for row in range(len(vectors)):
        for w in range(codes.shape[1]):
            word = np.uint64(0)
            for i in range(64 * w, min(64 * w + 64, d)):
                above = np.uint64(vectors[row, i] > np.float32(0))
                word |= above << np.uint64(i - 64 * w)
            codes[row, w] = word


@compiled
def _thinned(found: NDArray[np.uint64], n: int, bound: int, on_it: int) -> int:
    """Keep what is nearer than a bound, and the first of what lies on it; in their order."""
    kept = 0
    for i in range(n):
        distance = np.int64(found[i] >> np.uint64(32))
        if distance < bound or (distance == bound and on_it > 0):
            found[kept] = found[i]
            kept += 1
            on_it -= distance == bound
    return kept


@compiled
def nearest(
    queries: NDArray[np.uint64],
    codes: NDArray[np.uint64],
    allowed: NDArray[np.bool_],
    found: NDArray[np.uint64],
    counts: NDArray[np.int64],
    m: int,
) -> None:
    """The m nearest rows of each query; of rows equally far the first ones.

    For each query the distances of what it has taken are counted, so that its bound is known at any
    time: the least distance that m of them do not exceed. Only what is nearer is taken. Fewer than
    m of them lie within the bound but not on it, and at most m on it, because so many were all
    there were when the bound came down to it: room for twice m is enough.

    Args:
        queries: uint64 ``(groups, words, LANES)``.
        codes: uint64 ``(n, words)``.
        allowed: bool ``(n,)`` of rows that may be found, or ``(0,)`` for all.
        found: uint64 ``(groups * LANES, room)`` with ``room > 2 * m``, written: the distance above,
            the row below, by rising row.
        counts: int64 ``(groups * LANES,)``, written: how many were found, at most m.
        m: How many to find, at least 1.
    """
    groups, words = queries.shape[0], queries.shape[1]
    room = found.shape[1]
    counts[:] = 0
    bounds = np.full((groups, LANES), np.int64(64 * words + 1))
    taken = np.zeros((groups * LANES, 64 * words + 2), np.int32)
    within = np.zeros(groups * LANES, np.int64)
    distances = np.empty(LANES, np.int64)
    for row in range(len(codes)):
        if len(allowed) and not allowed[row]:
            continue
        for g in range(groups):
            nearer = _nearer(queries, g, codes, row, bounds, distances)
            if nearer == 0:
                continue
            for j in range(LANES):
                if not (nearer >> j) & 1:
                    continue
                q = g * LANES + j
                if counts[q] == room:
                    counts[q] = _thinned(found[q], room, bounds[g, j], room)
                found[q, counts[q]] = (np.uint64(distances[j]) << np.uint64(32)) | np.uint64(row)
                counts[q] += 1
                taken[q, distances[j]] += 1
                within[q] += 1
                while within[q] - taken[q, bounds[g, j]] >= m:
                    within[q] -= taken[q, bounds[g, j]]
                    bounds[g, j] -= 1
    for q in range(len(found)):
        bound = bounds[q // LANES, q % LANES]
        on_it = m - (within[q] - taken[q, bound])
        counts[q] = _thinned(found[q], counts[q], bound, on_it)
