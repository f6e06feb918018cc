"""Which words of a document a query looked at, as numbers, as text and as a page.

A token's part is its calibrated attention, and 0 where the filter dropped it, so that the parts of
a document add up to its score.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrievekit.rerank.scoring import kept_tokens


@dataclass(frozen=True)
class Attribution:
    """What each token of one document adds to its score.

    Args:
        text: The document as the model read it, its bracketed number included.
        starts: First character of each token, int64 ``(tokens,)``, ascending, the first one 0.
        parts: What each token adds, float64 ``(tokens,)``; 0 for those dropped.
        dropped: Tokens that were abnormally low, bool ``(tokens,)``.
    """

    text: str
    starts: NDArray[np.int64]
    parts: NDArray[np.float64]
    dropped: NDArray[np.bool_]

    @property
    def score(self) -> float:
        """The document's score: the sum of the parts."""
        return float(self.parts.sum())

    def tokens(self) -> list[tuple[str, float]]:
        """Pieces of the text with what they add.

        Returns:
            Pieces that join to the text; where several tokens stand for one character, the first
            has it and the others are empty.
        """
        ends = [*self.starts[1:].tolist(), len(self.text)]
        pieces = zip(self.starts.tolist(), ends, self.parts.tolist(), strict=True)
        return [(self.text[a:b], part) for a, b, part in pieces]

    def words(self) -> list[tuple[str, float]]:
        """Words (runs of what is not white space) with what their tokens add.

        Returns:
            The words in the text's order. A token belongs to the word that its first visible
            character belongs to; their parts add up to the score.
        """
        begins = [i for i, c in enumerate(self.text) if not c.isspace()]
        firsts = [i for i in begins if i == 0 or self.text[i - 1].isspace()]
        words = [(self.text[a:].split(None, 1)[0]) for a in firsts]
        sums = np.zeros(len(words))
        for start, part in zip(self.starts.tolist(), self.parts.tolist(), strict=True):
            visible = begins[min(np.searchsorted(begins, start), len(begins) - 1)]
            sums[np.searchsorted(firsts, visible, side="right") - 1] += part
        return list(zip(words, sums.tolist(), strict=True))

    def to_text(self, limit: int = 10) -> str:
        """The score and the words that add most, one per line.

        Args:
            limit: How many words.

        Returns:
            The lines.
        """
        best = sorted(enumerate(self.words()), key=lambda item: (-item[1][1], item[0]))[:limit]
        lines = [f"{self.score:10.6f}  {_plain(' '.join(self.text.split())[:80])}"]
        lines += [f"{part:10.6f}    {_plain(word)}" for _, (word, part) in best]
        return "\n".join(lines)


def attributed(
    deltas: NDArray[np.float64], offsets: NDArray[np.int64], text: str, sigma: float | None
) -> Attribution:
    """The attribution of a document from the attention to its tokens.

    Args:
        deltas: Calibrated attention to its tokens, float64 ``(tokens,)``.
        offsets: First character of each token in the text and the one behind its last, int64
            ``(tokens, 2)``.
        text: The text.
        sigma: See `kept_tokens`.

    Returns:
        The attribution.
    """
    kept = kept_tokens(deltas, sigma)
    starts = np.clip(offsets[:, 0], 0, len(text))
    starts[:1] = 0
    return Attribution(text, starts, np.where(kept, deltas, 0.0), ~kept)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{query}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --more: 26 115 60;
  --less: 178 48 34; --line: #d0d0d0; --quiet: #5f5f5f; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #ececec; --paper: #161616;
  --more: 70 190 120; --less: 240 120 105; --line: #444444; --quiet: #a8a8a8; }} }}
body {{ color: var(--ink); background: var(--paper); font: 16px/1.6 system-ui, sans-serif;
  max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.25rem; }}
article {{ border-top: 1px solid var(--line); padding: .75rem 0; white-space: pre-wrap;
  overflow-wrap: anywhere; }}
h2 {{ font-size: .95rem; font-weight: 600; margin: 0; color: var(--quiet); }}
p.key {{ color: var(--quiet); font-size: .9rem; }}
.m, .l {{ color: var(--ink); border-radius: 2px; }}
.m {{ background: rgb(var(--more) / calc(var(--a) * .5)); }}
.l {{ background: rgb(var(--less) / calc(var(--a) * .5)); }}
.d {{ text-decoration: line-through; color: var(--quiet); }}
</style>
</head>
<body>
<h1>{query}</h1>
<p class="key"><span class="m" style="--a:.8">looked at more</span> or <span class="l"
 style="--a:.8">less</span> than without the query; <span class="d">left out</span> as abnormally
 low. Point at a word for its part of the score.</p>
{articles}
</body>
</html>
"""


def to_html(query: str, found: Sequence[Attribution], names: Sequence[str] | None = None) -> str:
    """A page that shows where a query looked: no scripts, nothing from elsewhere, light or dark.

    Args:
        query: The query.
        found: The attributions, shown best first.
        names: What each document is called; by default its place in the list, from 1.

    Returns:
        The page. Texts are escaped, so documents cannot add to it.
    """
    titles = list(names) if names is not None else [str(i) for i in range(1, len(found) + 1)]
    top = max((float(np.abs(one.parts).max(initial=0.0)) for one in found), default=0.0)
    order = sorted(range(len(found)), key=lambda i: -found[i].score)
    articles = "\n".join(
        f"<article><h2>{rank}. {_escaped(titles[i])} · {found[i].score:.6f}</h2>"
        f"{_marked(found[i], top)}</article>"
        for rank, i in enumerate(order, 1)
    )
    return _PAGE.format(query=_escaped(query), articles=articles)


def _marked(one: Attribution, top: float) -> str:
    out = []
    for (piece, part), dropped in zip(one.tokens(), one.dropped.tolist(), strict=True):
        if not piece:
            continue
        if dropped:
            out.append(f'<span class="d">{_escaped(piece)}</span>')
        elif top > 0 and abs(part) / top >= 0.01:
            kind = "m" if part > 0 else "l"
            share = abs(part) / top
            out.append(
                f'<span class="{kind}" style="--a:{share:.2f}" title="{part:+.6f}">'
                f"{_escaped(piece)}</span>"
            )
        else:
            out.append(_escaped(piece))
    return "".join(out)


def _escaped(text: str) -> str:
    return html.escape("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text))


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
