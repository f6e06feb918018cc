"""Documents of the `stdlib` collection: the docstrings of the running Python's standard library.

One document is one public object that carries a docstring of its own. The rules, all of them
functions of names and objects alone, so that the same Python gives the same documents:

- **Modules** are those of `sys.stdlib_module_names` and their submodules, without private ones
  (a leading underscore anywhere), `__main__` and what `DENIED` lists, each with its reason.
- **Public** is a name in `__all__`; without an `__all__`, a name without a leading underscore
  whose home is this module, one of its submodules or a private one (so an import of somebody
  else's name is not documented again). Dunder names are never documents; a constructor's own
  docstring (`__init__` written in Python) is appended to its class.
- **One object, one id.** An object with several public names has the id with the fewest dots; then
  the one in the module that defines it; then the one spelled as its `__name__`; then the
  first by code point. Hence `asyncio.run`, not `asyncio.runners.run`; `random.choice`, not
  `random.Random.choice`; `OSError`, not `IOError` or `socket.error`. Names of `builtins` carry no
  module: `len`, `str.splitlines`.
- **Members** belong to the public class that defines them. What a private base defines belongs
  to the public class nearest to that base. A member whose text repeats, word for word, the text of
  the same name in a public base class is inherited and not documented again.
- **Equal texts** of different objects (`set.union`, `frozenset.union`) each stay: the objects are
  different answers, and which of them share their words changes from one Python to the next.
- What other packages put into the library's modules (a debugger's or test runner's patches) is not
  part of it.
- Texts that the interpreter writes itself (`Alias for field number 0`) are left out.
"""

from __future__ import annotations

import enum
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import platform
import re
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["module", "class", "function", "method", "property"]

_REMOVED = "deprecated, gone by Python 3.13 (PEP 594, PEP 632 and others); importing it warns"
_PLATFORM = "exists on one operating system only"
_SCREEN = "opens windows or needs a display"
_TERMINAL = "initialises the terminal or its line editor when imported"
_EXPORTED = "implementation; the parent package exports its public names"
_OS = "implementation of os and os.path, documented there"

#: Modules that are never imported, with the reason. A name covers its submodules;
#: a name that ends in `.*` covers the submodules only.
DENIED: Mapping[str, str] = {
    "this": "prints a poem when imported",
    "antigravity": "opens a web browser when imported",
    "idlelib": _SCREEN,
    "tkinter": _SCREEN,
    "turtle": _SCREEN,
    "turtledemo": _SCREEN,
    "curses": _TERMINAL,
    "readline": _TERMINAL,
    "rlcompleter": _TERMINAL,
    "distutils": _REMOVED,
    "lib2to3": _REMOVED,
    "imp": _REMOVED,
    "asynchat": _REMOVED,
    "asyncore": _REMOVED,
    "smtpd": _REMOVED,
    "aifc": _REMOVED,
    "audioop": _REMOVED,
    "cgi": _REMOVED,
    "cgitb": _REMOVED,
    "chunk": _REMOVED,
    "crypt": _REMOVED,
    "imghdr": _REMOVED,
    "mailcap": _REMOVED,
    "nis": _REMOVED,
    "nntplib": _REMOVED,
    "ossaudiodev": _REMOVED,
    "pipes": _REMOVED,
    "sndhdr": _REMOVED,
    "spwd": _REMOVED,
    "sunau": _REMOVED,
    "telnetlib": _REMOVED,
    "uu": _REMOVED,
    "xdrlib": _REMOVED,
    "sre_compile": "implementation of re; importing it warns",
    "sre_constants": "implementation of re; importing it warns",
    "sre_parse": "implementation of re; importing it warns",
    "nturl2path": "implementation of urllib.request; importing it warns from Python 3.14 on",
    "msilib": _PLATFORM,
    "msvcrt": _PLATFORM,
    "nt": _PLATFORM,
    "winreg": _PLATFORM,
    "winsound": _PLATFORM,
    "posix": _OS,
    "posixpath": _OS,
    "ntpath": _OS,
    "genericpath": _OS,
    "ensurepip": "distributors patch it or leave it out",
    "pydoc_data": "the interactive help's text, no programming interface",
    "encodings.*": "one table per character set; mbcs and oem fail off Windows",
    "ctypes.macholib": _PLATFORM,
    "ctypes.wintypes": _PLATFORM,
    "asyncio.*": _EXPORTED,
    "concurrent.futures.*": _EXPORTED,
    "unittest.async_case": _EXPORTED,
    "unittest.case": _EXPORTED,
    "unittest.loader": _EXPORTED,
    "unittest.main": _EXPORTED,
    "unittest.result": _EXPORTED,
    "unittest.runner": _EXPORTED,
    "unittest.signals": _EXPORTED,
    "unittest.suite": _EXPORTED,
    "unittest.util": _EXPORTED,
    "json.decoder": _EXPORTED,
    "json.encoder": _EXPORTED,
    "json.scanner": _EXPORTED,
    "sqlite3.dbapi2": _EXPORTED,
    "multiprocessing.context": _EXPORTED,
    "multiprocessing.forkserver": "implementation; owns a helper process",
    "multiprocessing.heap": "implementation; owns shared memory",
    "multiprocessing.popen_fork": "implementation",
    "multiprocessing.popen_forkserver": "implementation",
    "multiprocessing.popen_spawn_posix": "implementation",
    "multiprocessing.popen_spawn_win32": _PLATFORM,
    "multiprocessing.process": _EXPORTED,
    "multiprocessing.queues": _EXPORTED,
    "multiprocessing.reduction": "implementation",
    "multiprocessing.resource_sharer": "implementation; may start a thread",
    "multiprocessing.resource_tracker": "implementation; owns a helper process",
    "multiprocessing.spawn": "implementation",
    "multiprocessing.synchronize": _EXPORTED,
    "multiprocessing.util": "implementation; registers exit handlers",
}

#: Public modules that no package listing shows.
_UNLISTED = ("collections.abc", "os.path")

_GENERATED = re.compile(r"Alias for field number \d+|An enumeration\.")
_WORD = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+|[^\W_A-Za-z\d]+")


@dataclass(frozen=True, slots=True)
class StdlibDoc:
    """One documented object.

    Attributes:
        id: Qualified name, such as `tempfile.TemporaryDirectory` or `str.splitlines`.
        title: The qualified name with its parameters' names, then the words it is made of:
            `tempfile.TemporaryDirectory(suffix, prefix): tempfile Temporary Directory`. A word
            tokenizer keeps a dotted name whole, so the title spells the words apart.
        text: The docstring, its indentation removed.
        kind: What the object is; `property` covers every documented data descriptor.
        module: The public module that the id starts from; `builtins` for `len` or `str`.
    """

    id: str
    title: str
    text: str
    kind: Kind
    module: str


@dataclass(frozen=True, slots=True)
class Harvest:
    """What `harvest` found; iterating over it gives the documents.

    Attributes:
        documents: The documents, by ascending id.
        failed: Modules that could not be imported here, with the error's type and message.
        python_version: Of the running interpreter, such as `3.12.4`.
    """

    documents: tuple[StdlibDoc, ...]
    failed: Mapping[str, str]
    python_version: str

    def __iter__(self) -> Iterator[StdlibDoc]:
        """Iterate over the documents."""
        return iter(self.documents)

    def __len__(self) -> int:
        """The number of documents."""
        return len(self.documents)


@dataclass(frozen=True, slots=True)
class _Found:
    """A public name of an object; the smallest `rank` is the object's canonical name."""

    id: str
    obj: object
    kind: Kind
    module: str
    text: str
    rank: tuple[int, int, bool, bool, str]


def harvest() -> Harvest:
    """Collect the docstrings of the running Python's standard library.

    Imports the modules; writes nothing, opens nothing, and leaves warning filters as they were.

    Returns:
        Documents in the order of their ids, and the modules that did not import.

    Raises:
        RuntimeError: The interpreter runs with `-OO`, which removes docstrings.
    """
    if sys.flags.optimize >= 2:
        raise RuntimeError(
            "the stdlib collection is made of docstrings, and Python runs with -OO, which removes "
            "them; start it without -OO (unset PYTHONOPTIMIZE)"
        )
    failed: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modules = {}
        for name in module_names():
            try:
                modules[name] = importlib.import_module(name)
            except Exception as error:  # noqa: BLE001, whatever a broken installation raises
                failed[name] = f"{type(error).__name__}: {error}"
        documents = _documents(modules)
    return Harvest(documents, failed, platform.python_version())


def denial(name: str) -> str | None:
    """Tell why the module `name` is not imported.

    Args:
        name: Dotted module name.

    Returns:
        The reason, or None where the module is to be imported.
    """
    parts = name.split(".")
    if any(part.startswith("_") for part in parts):
        return "private"
    if "test" in parts or "tests" in parts:
        return "the interpreter's own tests"
    for end in range(1, len(parts) + 1):
        prefix = ".".join(parts[:end])
        if prefix in DENIED:
            return DENIED[prefix]
        if end < len(parts) and f"{prefix}.*" in DENIED:
            return DENIED[f"{prefix}.*"]
    return None


def module_names() -> list[str]:
    """List the modules that `harvest` imports, without importing one of them.

    Returns:
        Dotted names, sorted; a name that does not exist on this machine may be among them only
        where `sys.stdlib_module_names` has it.
    """
    found = {name for name in sys.stdlib_module_names if denial(name) is None}
    for name in sorted(found):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            found.update(_submodules(name, list(spec.submodule_search_locations)))
    return sorted(found.union(_UNLISTED))


def _submodules(package: str, folders: list[str]) -> Iterator[str]:
    for info in pkgutil.iter_modules(folders, prefix=f"{package}."):
        if denial(info.name) is not None:
            continue
        yield info.name
        if info.ispkg:
            tail = info.name.rpartition(".")[2]
            yield from _submodules(info.name, [f"{folder}/{tail}" for folder in folders])


def _documents(modules: Mapping[str, types.ModuleType]) -> tuple[StdlibDoc, ...]:
    classes: dict[int, _Found] = {}
    rest: dict[int, _Found] = {}
    for name, module in modules.items():
        for found in _module_level(name, module):
            home = classes if found.kind == "class" else rest
            _keep_best(home, _identity(found.obj, name), found)
    public = {id(found.obj) for found in classes.values() if isinstance(found.obj, type)}
    for found in classes.values():
        if isinstance(found.obj, type):
            for member in _members(found.id, found.obj, found.module, public):
                _keep_best(rest, _identity(member.obj, member.module), member)
    everything = [*classes.values(), *rest.values()]
    everything += [
        _Found(name, module, "module", name, _clean(module.__doc__), (0, 0, False, False, name))
        for name, module in modules.items()
    ]
    return tuple(
        StdlibDoc(found.id, _title(found), found.text, found.kind, found.module)
        for found in sorted(everything, key=lambda found: found.id)
        if found.text
    )


def _keep_best(into: dict[int, _Found], key: int, found: _Found) -> None:
    if key not in into or found.rank < into[key].rank:
        into[key] = found


def _module_level(name: str, module: types.ModuleType) -> Iterator[_Found]:
    exported = getattr(module, "__all__", None)
    for attribute in sorted(set(vars(module) if exported is None else exported)):
        obj = getattr(module, attribute, None)
        if attribute.startswith("_") or isinstance(obj, types.ModuleType) or _is_foreign(obj):
            continue
        if exported is None and name != "builtins" and not _is_home(name, obj):
            continue
        kind = _kind(obj)
        if kind is None:
            continue
        qualified = attribute if name == "builtins" else f"{name}.{attribute}"
        rank = (
            qualified.count("."),
            0,
            getattr(obj, "__module__", None) != name,
            getattr(obj, "__name__", None) != attribute,
            qualified,
        )
        yield _Found(qualified, obj, kind, name, _class_text(obj), rank)


def _is_foreign(obj: object) -> bool:
    home = getattr(_unbound(obj), "__module__", None)
    return isinstance(home, str) and home.partition(".")[0] not in sys.stdlib_module_names


def _is_home(name: str, obj: object) -> bool:
    home = getattr(obj, "__module__", None)
    if not isinstance(home, str) or home == name or home.startswith(f"{name}."):
        return True
    return denial(home) is not None


def _kind(obj: object) -> Kind | None:
    if isinstance(obj, types.GenericAlias):
        return None
    if isinstance(obj, type):
        return "class"
    if inspect.isroutine(obj):
        return "function"
    own = getattr(obj, "__doc__", None)
    if not isinstance(own, str) or own == type(obj).__doc__:
        return None
    # What is left are the special forms and aliases of typing and wrapped functions.
    return "class" if type(obj).__module__ == "typing" else "function" if callable(obj) else None


def _unbound(obj: object) -> object:
    while isinstance(obj, (types.MethodType, staticmethod, classmethod)):
        obj = obj.__func__
    return obj


def _identity(obj: object, module: str) -> int:
    """Equal for the same function, however it is bound, but for exports of bound methods.

    `random.choice` is `random.Random.choice` bound to a hidden instance; `secrets.choice` is the
    same function bound to an instance of another class, for another purpose, elsewhere.
    """
    if isinstance(obj, types.MethodType) and obj.__func__.__module__ != module:
        return id(obj)
    obj = _unbound(obj)
    if isinstance(obj, types.BuiltinMethodType):
        owner = obj.__self__
        if owner is not None and not isinstance(owner, (types.ModuleType, type)):
            return id(inspect.getattr_static(type(owner), obj.__name__, obj))
    return id(obj)


def _members(owner: str, cls: type, module: str, public: set[int]) -> Iterator[_Found]:
    """Members of `cls` itself and of the private bases that no other public class has nearer."""
    seen: set[str] = set()
    for distance, base in enumerate(cls.__mro__):
        if base is not cls and (
            id(base) in public
            or base is object
            or any(id(c) in public and base in c.__mro__ for c in cls.__mro__[1:])
        ):
            continue
        for attribute, obj in vars(base).items():
            kind = _member_kind(obj)
            if attribute.startswith("_") or kind is None or attribute in seen or _is_foreign(obj):
                continue
            seen.add(attribute)
            text = _clean(getattr(_unbound(obj), "__doc__", None))
            if not text or _repeats_a_base(base, attribute, text, public):
                continue
            qualified = f"{owner}.{attribute}"
            written = getattr(obj, "fget", obj)  # a property has a name of its own from 3.13 on
            renamed = getattr(written, "__name__", attribute) != attribute
            rank = (qualified.count("."), distance, base is not cls, renamed, qualified)
            yield _Found(qualified, obj, kind, module, text, rank)


def _member_kind(obj: object) -> Kind | None:
    if isinstance(obj, (staticmethod, classmethod)) or inspect.isroutine(obj):
        return "method"
    descriptors = (property, functools.cached_property, enum.property)
    if isinstance(obj, descriptors) or inspect.isdatadescriptor(obj):
        return None if getattr(obj, "__doc__", None) == type(obj).__doc__ else "property"
    return None


def _repeats_a_base(cls: type, attribute: str, text: str, public: set[int]) -> bool:
    for base in cls.__mro__[1:]:
        inherited = vars(base).get(attribute) if id(base) in public else None
        if inherited is not None and _clean(getattr(_unbound(inherited), "__doc__", None)) == text:
            return True
    return False


def _class_text(obj: object) -> str:
    own = _clean(getattr(obj, "__doc__", None))
    if isinstance(obj, type):
        constructor = vars(obj).get("__init__")
        if isinstance(constructor, types.FunctionType):
            own = f"{own}\n\n{_clean(constructor.__doc__)}".strip()
    return own


def _clean(doc: object) -> str:
    text = inspect.cleandoc(doc).strip() if isinstance(doc, str) else ""
    return "" if _GENERATED.fullmatch(text) else text


def _title(found: _Found) -> str:
    words = [word for part in found.id.split(".") for word in _WORD.findall(part)]
    shown = f"{found.id}{_parameters(found)}"
    return shown if found.id == words[0] else f"{shown}: {' '.join(words)}"


def _parameters(found: _Found) -> str:
    """Names only: defaults differ from run to run (addresses) and say little."""
    obj = found.obj
    if found.kind in ("module", "property"):
        return ""
    if isinstance(obj, (staticmethod, classmethod)):
        skip_first = isinstance(obj, classmethod)
        obj = obj.__func__
    else:
        skip_first = found.kind == "method"
    if not callable(obj):
        return ""
    try:
        parameters = list(inspect.signature(obj).parameters.values())
    except Exception:  # noqa: BLE001, it evaluates defaults and annotations, which may raise anything
        return ""
    names = [
        "*" * ((p.kind is p.VAR_POSITIONAL) + 2 * (p.kind is p.VAR_KEYWORD)) + p.name
        for p in parameters
    ]
    return f"({', '.join(names[1:] if skip_first else names)})"
