"""`PrecomputedVectors`: document vectors that somebody has computed already, from files.

npy files and safetensors are mapped and Parquet is read in parts, so that a collection larger than
memory can be indexed with `DenseIndex.from_vectors`. Nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.errors import DataError, MissingDataError
from retrievekit.ids import Ids

ROWS_AT_A_TIME = 8192

IdsLike = Sequence[str] | str | Path
"""Ids, or a file of them: text with one per line, or npy."""


@dataclass(frozen=True, eq=False)
class PrecomputedVectors:
    """Vectors in a file, read in parts.

    Args:
        dim: Components of each vector.
        rows: How many vectors there are.
        ids: The ids of the documents they belong to, in order, or None when only the order says it.
        source: Opens them anew: parts of floats ``(m, dim)``, one after the other.
    """

    dim: int
    rows: int
    ids: Ids | None
    source: Callable[[], Iterator[NDArray[Any]]]

    def __len__(self) -> int:
        """How many vectors there are."""
        return self.rows

    def parts(self) -> Iterator[NDArray[Any]]:
        """The vectors from the first to the last.

        Yields:
            Floats ``(m, dim)`` of the file's own dtype.
        """
        return self.source()

    @classmethod
    def open(
        cls, path: str | Path, *, ids: IdsLike | None = None, column: str | None = None
    ) -> PrecomputedVectors:
        """Vectors from a file, by its suffix: ``.npy``, ``.safetensors`` or ``.parquet``.

        Args:
            path: The file.
            ids: The documents' ids in order, or a file of them, or, for Parquet, the column that
                holds them.
            column: Which tensor or column holds the vectors; needed where there are several.

        Returns:
            The vectors.

        Raises:
            MissingDataError: There is no such file.
            DataError: Another suffix, or a file that does not hold one matrix of floats.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingDataError(f"no file {path}")
        if path.suffix == ".npy":
            return cls._npy(path, ids)
        if path.suffix == ".safetensors":
            return cls._safetensors(path, ids, column)
        if path.suffix == ".parquet":
            return cls._parquet(path, ids, column)
        raise DataError(f"{path}: vectors are read from .npy, .safetensors and .parquet files")

    @classmethod
    def _npy(cls, path: Path, ids: IdsLike | None) -> PrecomputedVectors:
        array = read_npy(path)
        _check_matrix(path, array.shape, array.dtype.kind)

        def parts() -> Iterator[NDArray[Any]]:
            for start in range(0, len(array), ROWS_AT_A_TIME):
                yield array[start : start + ROWS_AT_A_TIME]

        return cls(array.shape[1], len(array), read_ids(ids, len(array)), parts)

    @classmethod
    def _safetensors(cls, path: Path, ids: IdsLike | None, name: str | None) -> PrecomputedVectors:
        from safetensors import SafetensorError, safe_open

        try:
            # As tensors of torch: NumPy has no bfloat16.
            opened: Any = safe_open(path, framework="pt")
            names = sorted(opened.keys())
        except (SafetensorError, OSError) as why:
            raise DataError(f"{path}: not a safetensors file ({why})") from why
        chosen = _chosen(path, "tensors", names, name)
        tensor = opened.get_slice(chosen)
        rows, *rest = tensor.get_shape()
        _check_matrix(path, (rows, *rest), "f" if "F" in tensor.get_dtype() else "?")

        def parts() -> Iterator[NDArray[Any]]:
            for start in range(0, rows, ROWS_AT_A_TIME):
                part = tensor[start : min(start + ROWS_AT_A_TIME, rows)]
                yield part.float().numpy()

        return cls(rest[0], rows, read_ids(ids, rows), parts)

    @classmethod
    def _parquet(cls, path: Path, ids: IdsLike | None, name: str | None) -> PrecomputedVectors:
        from pyarrow import parquet

        try:
            file = parquet.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as why:
            raise DataError(f"{path}: not a Parquet file ({why})") from why
        schema, rows = file.schema_arrow, file.metadata.num_rows
        lists = [
            column.name
            for column in schema
            if pa.types.is_list(column.type)
            or pa.types.is_large_list(column.type)
            or pa.types.is_fixed_size_list(column.type)
        ]
        chosen = _chosen(path, "columns of lists", lists, name)
        known: Ids | None
        if isinstance(ids, str) and ids in schema.names:
            column = file.read(columns=[ids]).column(0)
            known = read_ids(_named(f"{path}: column {ids!r}", column.to_pylist()), rows)
        else:
            known = read_ids(ids, rows)

        def parts(limit: int = ROWS_AT_A_TIME) -> Iterator[NDArray[Any]]:
            done = 0
            for batch in file.iter_batches(batch_size=limit, columns=[chosen]):
                yield _matrix(path, batch.column(0), done)
                done += len(batch)

        first = next(parts(1), None)
        dim = 0 if first is None else first.shape[1]
        _check_matrix(path, (rows, dim), "f" if first is None else first.dtype.kind)
        return cls(dim, rows, known, parts)


def read_npy(path: Path) -> NDArray[Any]:
    """An npy file as a map.

    Args:
        path: The file.

    Returns:
        An array of the file's shape ``(...,)`` and dtype.

    Raises:
        DataError: Not npy, or an array of Python objects, which would have to be unpickled.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as why:
        raise DataError(f"{path}: not an npy file of numbers or strings ({why})") from why
    return array


def read_ids(ids: IdsLike | None, rows: int) -> Ids | None:
    """The ids of vectors, from a sequence or a file.

    Args:
        ids: Ids; or a file: npy, or text with one id per line, which may hold blanks.
        rows: How many there should be.

    Returns:
        The ids, or None for None.

    Raises:
        MissingDataError: There is no such file.
        DataError: Another number of ids than vectors, or ids that are no strings or whole numbers.
    """
    if ids is None:
        return None
    where = "ids"
    if isinstance(ids, str | Path):
        path = Path(ids)
        if not path.is_file():
            raise MissingDataError(f"no file of ids {path}, and no column of that name")
        where = str(path)
        if path.suffix == ".npy":
            ids = _named(where, read_npy(path).tolist())
        else:
            try:
                text = path.read_bytes().decode("utf-8")
            except UnicodeDecodeError as why:
                raise DataError(f"{path}: not UTF-8 at byte {why.start}") from why
            if text.startswith("\ufeff"):
                raise DataError(
                    f"{path}: begins with a byte-order mark, which would be part of the first id; "
                    "save as UTF-8 without one"
                )
            # Split at line ends only: an id may hold any other character.
            lines = text.split("\n")
            ids = [line.removesuffix("\r") for line in lines[: -1 if lines[-1] == "" else None]]
    if len(ids) != rows:
        raise DataError(f"{where}: {len(ids)} ids for {rows} vectors")
    return Ids.from_strings(ids, what="document id")


def _named(where: str, values: Any) -> list[str]:
    """Ids that are strings or whole numbers; of anything else it is not clear how it is spelt."""
    values = values if isinstance(values, list) else [values]
    for row, value in enumerate(values):
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise DataError(
                f"{where}: the id of row {row} is {value!r} ({type(value).__name__}); ids are "
                "strings or whole numbers, one for each vector"
            )
    return [str(value) for value in values]


def _chosen(path: Path, what: str, names: list[str], name: str | None) -> str:
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        said = "say which holds the vectors, column=..." if name is None else f"none is {name!r}"
        raise DataError(f"{path}: {len(names)} {what} ({', '.join(names[:9])}); {said}")
    return name


def _check_matrix(path: Path, shape: tuple[int, ...], kind: str) -> None:
    if len(shape) != 2 or kind != "f" or (shape[0] and not shape[1]):
        raise DataError(
            f"{path}: vectors are one matrix of floats; this is {shape} of kind {kind!r}. Integers "
            "would need their scale"
        )


def _matrix(path: Path, column: Any, done: int) -> NDArray[Any]:
    lengths = np.asarray(column.value_lengths().fill_null(-1))
    dim = int(lengths[0])
    wrong = np.flatnonzero(lengths != dim)
    if dim < 0 or len(wrong):
        row = done + (int(wrong[0]) if len(wrong) else 0)
        raise DataError(
            f"{path}: the vector of row {row} has {lengths[row - done]} components, others {dim} "
            "(-1 stands for none)"
        )
    values = column.flatten()
    if values.null_count:
        raise DataError(f"{path}: a vector from row {done} on holds null")
    matrix: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(-1, dim)
    return matrix
