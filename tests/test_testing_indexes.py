"""Every registered index kind has its case, and the laws of indexes notice what breaks them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrievekit import registry
from retrievekit.corpus import Document
from retrievekit.errors import UnknownNameError
from retrievekit.testing import IndexCase, check_index, index_cases
from retrievekit.testing.histories import Update, document, documents, found_in, strays, updates


def without_case() -> set[str]:
    return set(registry.names("index")) - {case.kind for case in index_cases().values()}


def test_every_registered_kind_has_a_case() -> None:
    assert without_case() == set(), "register an IndexCase under 'index-case' beside the kind"


def test_a_kind_without_a_case_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._ENTRIES["index"], "new", "somewhere:NewIndex")
    assert without_case() == {"new"}


def test_what_is_no_case_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._ENTRIES["index-case"], "odd", "pathlib:Path")
    with pytest.raises(TypeError, match="'odd'"):
        index_cases()


def test_a_target_is_told_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._ENTRIES["index"], "new", "somewhere:NewIndex")
    assert registry.target("index", "new") == "somewhere:NewIndex"
    with pytest.raises(UnknownNameError, match="nwe"):
        registry.target("index", "nwe")


def test_a_case_builds_and_opens_its_kind(index_case: IndexCase, tmp_path: Path) -> None:
    given = [document(f"d{n}", 1) for n in range(20)]
    built = index_case.build(given, tmp_path / "x")
    assert built.kind == index_case.kind
    assert built.kind in registry.names("index")
    opened = index_case.open(tmp_path / "x")
    assert opened.manifest_hash == built.manifest_hash
    check_index(index_case, opened, given)


def test_the_laws_of_indexes_notice_what_breaks_them(index_case: IndexCase) -> None:
    given = [document(f"d{n}", 1) for n in range(20)]
    index = index_case.build(given)
    check_index(index_case, index_case.build([]), [])
    with pytest.raises(AssertionError, match=r"documents: .* 1 lost"):
        check_index(index_case, index, [*given, document("e", 1)])
    with pytest.raises(AssertionError, match="1 more"):
        check_index(index_case, index, given[1:])
    with pytest.raises(AssertionError, match="words: "):
        check_index(index_case, index, [document("d0", 2), *given[1:]])
    if index_case.exact:
        index.__dict__["fingerprint"] = "0" * 64
        with pytest.raises(AssertionError, match="fingerprint: "):
            check_index(index_case, index, given)


def test_answers_of_another_index_are_noticed() -> None:
    case = index_cases()["bm25"]
    index = case.build([document(f"d{n}", 1) for n in range(20)])
    # Statistics that are off by a little, as an update that forgot to count would leave them.
    index.manifest.statistics["tokens"] += 5  # type: ignore[index]
    with pytest.raises(AssertionError, match=r"answers of a fresh index: .*query"):
        check_index(case, index, [document(f"d{n}", 1) for n in range(20)])


def test_the_case_of_int8_stores_int8() -> None:
    case = index_cases()["dense-stored-int8"]
    index = case.build([Document(f"d{n}", f"cat {n}") for n in range(4)])
    with index.writer() as writer:
        writer.add([Document("e", "dog")])
    assert [s["vectors"].dtype for s in index.reopen().segments] == [np.int8, np.int8]


@pytest.mark.parametrize("verb", ["build", "add", "upsert", "delete", "compact", "mixed"])
def test_histories_say_beforehand_what_will_be(
    index_case: IndexCase, verb: str, tmp_path: Path
) -> None:
    start = Update(1, build=tuple(f"d{n}" for n in range(12)))
    start.carry_out(index_case, tmp_path / "x")
    state = start.applied({})
    twin = updates(verb, state, 3)
    for number, (update, after) in zip(range(3), updates(verb, state, 3), strict=False):
        assert next(twin) == (update, after)
        update.carry_out(index_case, tmp_path / "x", commit=False) if verb != "build" else None
        update.carry_out(index_case, tmp_path / "x")
        found = found_in(index_case, tmp_path / "x")
        assert (found.state, found.generation) == (after, number + 2)
        assert found.index is not None
        check_index(index_case, found.index, documents(after))
        if verb == "delete" and number == 1:
            assert len(after) == 2
            assert list(updates(verb, after, 3)) == []
            break
    assert strays(tmp_path / "x") == []
    (tmp_path / "x" / "segments" / "000009-00").mkdir()
    (tmp_path / "x" / "manifest-000009.json").write_text("{}")
    assert strays(tmp_path / "x") == ["manifest-000009.json", "segments/000009-00"]
