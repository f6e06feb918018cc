"""`PairwiseReranker`: which of two passages is better, always asked in both orders.

Pairwise ranking prompting (PRP, Qin et al., NAACL 2024, arXiv 2306.17563): a passage wins only
where it does so in both orders; else it is a tie, half a point each. All pairs are compared, or a
heap, or K passes from the tail to the head, which settle K places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from retrievekit.errors import DataError
from retrievekit.language.chat import Chat
from retrievekit.rerank.delimiters import Passages
from retrievekit.rerank.parsing import read_choice
from retrievekit.rerank.permute import merged_orders, presentations
from retrievekit.rerank.prompted import PromptedReranker
from retrievekit.rerank.setwise import Reads, asked, labels_behind
from retrievekit.rerank.sorting import all_pairs, best_of_pairs, heapsort, renumbered, sliding
from retrievekit.rerank.steps import Walk, together
from retrievekit.trace import count

Pairs: TypeAlias = Literal["all", "heap", "sliding"]
"""Which pairs are compared."""


@dataclass(frozen=True, repr=False)
class PairwiseReranker(PromptedReranker):
    """Reranks by asking which of two passages is more relevant, in both orders.

    Ties keep the order that documents had. Both orders of a pair are asked anyway; what `permute`
    changes is the order in which sorting finds the documents: it is done from so many seeded ones
    at once, and the order is the one by mean rank (Borda's count). Comparing all pairs does not
    depend on that order, and is done once.

    Args:
        model: Generates, or tells logits.
        documents: Where the words of hits are: a corpus, or an index that keeps words.
        k: Hits of each query that are reranked; None means all.
        rest: What becomes of hits below: ``keep`` them behind, in their order, or ``cut`` them.
        max_words: Words of a passage that are read; None reads all.
        guard: ``marked``, ``cleaned`` or ``plain``; only the latter two give the published prompt.
        permute: From how many orders of the documents sorting begins.
        seed: Other seeds give other orders and marks.
        lift: How many places a document may rise at most; None sets no cap.
        pairs: ``all``, ``heap`` or ``sliding``.
        top: Places that are settled by ``heap`` and ``sliding``, the method's K.
        reads: ``logits`` or ``words``.
        begun: What the model's answer is begun with, such as ``Passage`` for models of the T5
            family; the label follows it.

    Raises:
        DataError: A setting is none of these.
    """

    _: KW_ONLY
    pairs: Pairs = "sliding"
    top: int = 10
    reads: Reads = "logits"
    begun: str = ""

    label: ClassVar[str] = "pairwise"

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.pairs not in get_args(Pairs):
            raise DataError(f"pairs is one of {', '.join(get_args(Pairs))}, not {self.pairs!r}")
        if self.reads not in get_args(Reads):
            raise DataError(f"reads is 'logits' or 'words', not {self.reads!r}")
        self.check_whole("top", least=1)

    def walk(self, n: int) -> Walk[list[int]]:
        """All pairs, or sorting from as many orders as `permute` says."""
        if self.pairs == "all":
            return (yield from all_pairs(n))
        starts = presentations(self.permute, n, self.seed)
        walks = [renumbered(self._sorted(n), start) for start in starts]
        return merged_orders((yield from together(walks)))

    def _sorted(self, n: int) -> Walk[list[int]]:
        if self.pairs == "heap":
            return heapsort(n, 2, self.top, best_of_pairs)
        return sliding(n, self.top)

    def orders(self, size: int) -> list[tuple[int, ...]]:
        """Both orders of a pair."""
        return [(0, 1), (1, 0)]

    def chat(self, query: str, passages: Passages) -> Chat:
        """The prompt, as published but for what `guard` adds."""
        question = (
            f'Given a query "{query}", which of the following two passages is more relevant to the '
            "query?"
        )
        a, b = passages.texts
        words = (
            f'{passages.under(question)}\n\nPassage A: "{a}"\n\nPassage B: "{b}"\n\n'
            "Output Passage A or Passage B:"
        )
        return asked(words, self.begun)

    def put(self, chats: Sequence[Chat], sizes: Sequence[int]) -> list[Any]:
        """0 or 1 where the first or second passage shown is the better, None where neither is."""
        if self.reads == "logits":
            logits = self.inclined(chats, labels_behind(self.begun, "AB"))
            return [None if a == b else int(b > a) for a, b in logits.tolist()]
        found = [read_choice(text, "AB") for text in self.generated(chats)]
        count("unreadable answers", found.count(None))
        return found

    def verdict(self, said: Sequence[Any], orders: Sequence[tuple[int, ...]]) -> float:
        """1 where the first document wins in both orders, 0 where the second does, else ½."""
        if tuple(said) in ((0, 1), (1, 0)):
            return 1.0 if said[0] == 0 else 0.0
        count("inconsistent pairs")
        return 0.5
