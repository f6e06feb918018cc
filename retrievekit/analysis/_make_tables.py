"""Makes `unicode_tables.py` from the published Unicode character database.

Run by hand, only when Lucene's tokenizer moves to another Unicode version::

    python -m retrievekit.analysis._make_tables FOLDER

`FOLDER` holds five files of Unicode 12.1.0 under their published names: `UnicodeData.txt`,
`Scripts.txt`, `LineBreak.txt`, `WordBreakProperty.txt` and `emoji-data.txt` (emoji version 12.0).
"""

from __future__ import annotations

import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

HEADER = '''"""Unicode 12.1.0 as tokenizer and lower case filter need it; generated, do not edit.

Made by `_make_tables.py` from the published `UnicodeData.txt`, `Scripts.txt`, `LineBreak.txt`,
`WordBreakProperty.txt` (Unicode 12.1.0) and `emoji-data.txt` (emoji 12.0). Pinned here because a
Python's own `unicodedata` changes from release to release and an index must not.

`CLASSES` maps the letter of a word break class (listed in `wordbreak.py`) to its code points in
hexadecimal, single or `first-last`; every other code point has class `o`. `LOWER` holds the simple
lower case mappings as `first-last/step+offset`, all hexadecimal.
"""

from __future__ import annotations

'''


def read(path: Path) -> dict[str, set[int]]:
    """The code points of each value in a `code[..code] ; value # comment` file."""
    values: dict[str, set[int]] = defaultdict(set)
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = [field.strip() for field in line.split("#")[0].split(";")]
        if len(fields) >= 2:
            first, _, last = fields[0].partition("..")
            values[fields[1]].update(range(int(first, 16), int(last or first, 16) + 1))
    return values


def classes(folder: Path) -> dict[str, set[int]]:
    """The word break classes, disjoint: a code point's properties decide which one it is in."""
    words = read(folder / "WordBreakProperty.txt")
    scripts = read(folder / "Scripts.txt")
    emoji = read(folder / "emoji-data.txt")
    south_east_asian = read(folder / "LineBreak.txt")["SA"]
    keycap = set(map(ord, "0123456789#*"))
    modifier = emoji["Emoji_Modifier"]
    pictograph = emoji["Extended_Pictographic"] | (
        emoji["Emoji"] - words["Regional_Indicator"] - keycap - modifier
    )
    letter = words["ALetter"]
    numeric = words["Numeric"] | set(range(0xFF10, 0xFF1A))
    extend = words["Extend"] | words["Format"] | words["ZWJ"]
    tags = set(range(0xE0020, 0xE007F))
    special = words["ZWJ"] | modifier | tags | {0xFE0E, 0xFE0F, 0x20E3, 0xE007F}
    assert special <= extend
    table = {
        "a": letter - pictograph,
        "v": letter & pictograph,
        "h": words["Hebrew_Letter"],
        "n": numeric,
        "k": words["Katakana"],
        "u": words["ExtendNumLet"],
        "l": words["MidLetter"],
        "m": words["MidNum"],
        "b": words["MidNumLet"],
        "q": words["Single_Quote"],
        "d": words["Double_Quote"],
        "x": extend - special - south_east_asian,
        "y": extend & south_east_asian,
        "z": words["ZWJ"],
        "e": {0xFE0E},
        "f": {0xFE0F},
        "c": {0x20E3},
        "t": tags,
        "w": {0xE007F},
        "j": modifier,
        "s": south_east_asian - extend,
        "i": scripts["Han"] - letter,
        "g": scripts["Hiragana"],
        "r": words["Regional_Indicator"],
        "p": pictograph - letter,
        "#": keycap - numeric,
    }
    assert sum(map(len, table.values())) == len(set().union(*table.values()))
    return table


def runs(points: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The first and last of each run of consecutive code points."""
    first = last = -2
    for point in sorted(points):
        if point != last + 1:
            if last >= 0:
                yield first, last
            first = point
        last = point
    if last >= 0:
        yield first, last


def lower_runs(path: Path) -> Iterator[str]:
    """Simple lower case mappings (field 13 of UnicodeData), runs of one offset and step joined."""
    offsets: dict[int, int] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = line.split(";")
        if fields[13]:
            offsets[int(fields[0], 16)] = int(fields[13], 16) - int(fields[0], 16)
    while offsets:
        first = last = min(offsets)
        offset = offsets.pop(first)
        step = 2 if offsets.get(first + 1) != offset == offsets.get(first + 2) else 1
        while offsets.get(last + step) == offset:
            last += step
            del offsets[last]
        yield f"{first:X}-{last:X}/{step}{offset:+X}"


def literal(text: str) -> str:
    """A string literal of as many lines as it needs, in the formatter's layout."""
    lines = textwrap.wrap(text, 88, break_on_hyphens=False)
    if len(lines) == 1:
        return f'"{text}"'
    return (
        "(\n"
        + "".join(f'        "{line} "\n' for line in lines[:-1])
        + f'        "{lines[-1]}"\n    )'
    )


def main(folder: Path) -> None:
    """Write `unicode_tables.py` beside this file."""
    out = [HEADER, "CLASSES: dict[str, str] = {\n"]
    for name, points in classes(folder).items():
        ranges = " ".join(f"{a:X}" if a == b else f"{a:X}-{b:X}" for a, b in runs(points))
        out.append(f'    "{name}": {literal(ranges)},\n')
    lower = literal(" ".join(lower_runs(folder / "UnicodeData.txt")))
    out.append(f"}}\n\nLOWER = {lower.replace(chr(10) + '    ', chr(10))}\n")
    Path(__file__).with_name("unicode_tables.py").write_text("".join(out), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
