"""How kernels are compiled: numba, cached per version and per content of this folder.

A kernel is a plain function over arrays, decorated with `compiled`. numba keys its disk cache by
the modification time of the kernel's own file and does not notice an edited callee in another
module, so the cache lies in a folder named after the package version and a hash over all files
here: ``<RETRIEVEKIT_CACHE>/numba/<version>-<hash>/``. Where no folder can be written the kernels
are compiled anew in each process, and the log says so once.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from retrievekit._version import __version__
from retrievekit.locations import cache_dir

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger(__name__)


@functools.cache
def kernel_cache() -> Path | None:
    """Folder of compiled kernels, or None when no folder can be written.

    The first call of a process that finds the folder empty logs, at level WARNING, that kernels
    will be compiled: it happens once per installed version and takes some seconds.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode())
        digest.update(source.read_bytes())
    folder = cache_dir() / "numba" / f"{__version__}-{digest.hexdigest()[:12]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as why:
        log.warning("kernels are compiled in memory for this process only: %s", why)
        return None
    if next(folder.iterdir(), None) is None:
        log.warning("compiling kernels for the first time (once per version, some seconds)")
    return folder


def compiled(function: F) -> F:
    """Compile a kernel with numba on its first call, without the interpreter lock.

    Args:
        function: A function over NumPy arrays and scalars.

    Returns:
        A function of the same signature.
    """
    return _compiled(function)


def reordered(function: F) -> F:
    """Compile a kernel whose sums may be taken in any order, as suits the processor's registers.

    For approximate scores only: the last bits of what it returns differ between machines.

    Args:
        function: A function over NumPy arrays and scalars.

    Returns:
        A function of the same signature.
    """
    return _compiled(function, fastmath={"reassoc", "contract"})


def _compiled(function: F, **more: Any) -> F:
    import numba

    settings: Any = numba.config
    folder = kernel_cache()
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", **more}
    if folder is None:
        return cast(F, numba.njit(function, **options))
    # numba reads its cache folder when the decorator runs: set it for us alone, then put it back.
    before = settings.CACHE_DIR
    settings.CACHE_DIR = str(folder)
    try:
        return cast(F, numba.njit(function, cache=True, **options))
    finally:
        settings.CACHE_DIR = before
