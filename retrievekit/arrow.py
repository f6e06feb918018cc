"""Arrow arrays from strings and row numbers.

``pyarrow.array`` would do, but it imports pandas (where that is installed) to look whether it was
given one of its series, which costs a cold search a fifth of a second.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def string_array(values: Sequence[str]) -> pa.LargeStringArray:
    """Strings as UTF-8 bytes and offsets.

    Args:
        values: The strings.

    Returns:
        A ``large_string`` array of the same length, without nulls.

    Raises:
        UnicodeEncodeError: A string holds a lone surrogate.
    """
    raw = [value.encode("utf-8") for value in values]
    offsets = np.zeros(len(raw) + 1, np.int64)
    np.cumsum([len(value) for value in raw], out=offsets[1:])
    return pa.LargeStringArray.from_buffers(
        len(raw), pa.py_buffer(offsets), pa.py_buffer(b"".join(raw))
    )


def row_array(rows: NDArray[np.integer]) -> pa.Int64Array:
    """Row numbers for Arrow's ``take``.

    Args:
        rows: Integers ``(m,)``.

    Returns:
        An ``int64`` array of the same length.
    """
    plain = np.ascontiguousarray(rows, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(plain), [None, pa.py_buffer(plain)])
