"""Where the package keeps what it can fetch or compute again.

``RETRIEVEKIT_CACHE`` names the folder; without it the platform's user cache is used
(``$XDG_CACHE_HOME/retrievekit``, ``~/.cache/retrievekit``). Never the working directory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_dir() -> Path:
    """The cache folder, which need not exist yet."""
    given = os.environ.get("RETRIEVEKIT_CACHE")
    if given:
        return Path(given).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "retrievekit"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "retrievekit"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "retrievekit"
