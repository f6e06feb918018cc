"""Lines of text cut into fields, over bytes: nothing becomes a Python object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.compiling import compiled

COMMENT = -1

_TAB, _NEWLINE, _RETURN, _BLANK, _HASH = 9, 10, 13, 32, 35


@compiled
def split_lines(
    data: NDArray[np.uint8], width: int, tabs: bool
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Cut lines into fields, at runs of ASCII blanks or at each tab.

    Args:
        data: uint8 ``(bytes,)`` of whole lines, the last with or without its end, at most 2 GiB.
        width: How many fields of a line are wanted.
        tabs: Whether each tab ends a field; otherwise blanks of any number and kind do, and a line
            that begins with ``#`` is a comment.

    Returns:
        How many fields each line has, int32 ``(lines,)``, 0 for a line of blanks (without a tab,
        where tabs end fields), `COMMENT` for a comment; and where the first `width` of them start
        and end, int32 ``(lines, 2 * width)``.
    """
    n = 0
    for i in range(len(data)):
        n += data[i] == _NEWLINE
    if len(data) and data[len(data) - 1] != _NEWLINE:
        n += 1
    counts = np.zeros(n, np.int32)
    bounds = np.zeros((n, 2 * width), np.int32)
    place = 0
    for line in range(n):
        end = place
        while end < len(data) and data[end] != _NEWLINE:
            end += 1
        last = end
        while last > place and (data[last - 1] == _RETURN):
            last -= 1
        fields = 0
        filled = False
        for i in range(place, last):
            filled |= tabs and data[i] == _TAB
            filled |= not (data[i] == _BLANK or _TAB <= data[i] <= _RETURN)
            if filled:
                break
        i = place
        while tabs and filled and i <= last:
            start = i
            while i < last and data[i] != _TAB:
                i += 1
            if fields < width:
                bounds[line, 2 * fields] = start
                bounds[line, 2 * fields + 1] = i
            fields += 1
            i += 1
        while not tabs and i < last:
            while i < last and (data[i] == _BLANK or _TAB <= data[i] <= _RETURN):
                i += 1
            if i == last:
                break
            start = i
            while i < last and not (data[i] == _BLANK or _TAB <= data[i] <= _RETURN):
                i += 1
            if fields < width:
                bounds[line, 2 * fields] = start
                bounds[line, 2 * fields + 1] = i
            fields += 1
        if fields > 0 and not tabs and data[bounds[line, 0]] == _HASH:
            fields = COMMENT
        counts[line] = fields
        place = end + 1
    return counts, bounds


@compiled
def gather_field(
    data: NDArray[np.uint8], bounds: NDArray[np.int32], lines: NDArray[np.int64], field: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One field of some lines as a column.

    Args:
        data: uint8 ``(bytes,)``.
        bounds: int32 ``(lines, 2 * width)``, from `split_lines`.
        lines: int64 ``(m,)``, the lines wanted.
        field: Which field, from 0.

    Returns:
        All its bytes, uint8 ``(total,)``, and where each value starts and ends, int64 ``(m + 1,)``.
    """
    offsets = np.zeros(len(lines) + 1, np.int64)
    for k in range(len(lines)):
        start, end = bounds[lines[k], 2 * field], bounds[lines[k], 2 * field + 1]
        offsets[k + 1] = offsets[k] + end - start
    out = np.empty(offsets[len(lines)], np.uint8)
    for k in range(len(lines)):
        start = bounds[lines[k], 2 * field]
        for i in range(offsets[k + 1] - offsets[k]):
            out[offsets[k] + i] = data[start + i]
    return out, offsets
