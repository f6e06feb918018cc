"""`LateInteraction`: reranking by MaxSim over the token vectors of a multi-vector model.

Khattab and Zaharia (ColBERT, arXiv 2004.12832): with q_i the vectors of the query's tokens and d_j
those of the document's, a score is ``sum_i max_j q_i . d_j``; with ``meanmaxsim``, which a model
may name as its similarity, it is divided by the query's tokens.

Which tokens count is the model's to say: padding never does, punctuation of documents mostly not,
and the mask tokens that queries are filled up with do. A token that does not count takes no part in
a maximum at all; were it a zero, it would win against negative similarities.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Corpus
from retrievekit.encode.conventions import Role
from retrievekit.encode.quiet import without_bars
from retrievekit.encode.wiring import PROMPT_NAMES, pool_in_float32
from retrievekit.errors import DataError
from retrievekit.headway import report_headway
from retrievekit.index.base import Index
from retrievekit.language.batches import in_token_batches
from retrievekit.rerank.base import PointwiseReranker, Rest
from retrievekit.rerank.stored import StoredModel, call_of, readable
from retrievekit.stage import knob
from retrievekit.trace import count

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_TOKENIZED_AT_A_TIME = 1024
_QUERY_TOKENS = 1 << 19
"""Tokens of the queries that are held at a time, padding included."""
_ELEMENTS = 1 << 24
"""Numbers that the scoring of some pairs holds at a time."""


class MultiVectorModel(StoredModel):
    """A multi-vector model by folder or hub id, loaded with care on first use.

    Read are folders of sentence-transformers' ``MultiVectorEncoder``, of PyLate, and of ColBERT
    with its own layout; what the folder says of prompts, lengths, query expansion and skipped
    tokens holds.

    Args:
        name: A model folder or a hub id; the hub's cache is asked before the hub.
        device: Such as ``cpu`` or ``cuda:1``; by default the best there is.
        dtype: ``float32``, ``bfloat16`` or ``float16``, in which the transformer computes; what
            follows it, and the scores, are computed in float32.
        revision: A branch, tag or commit of a hub model.

    Raises:
        DataError: No such dtype.
    """

    foreign_classes = ("pylate.models.Dense.Dense",)

    @property
    def network(self) -> Any:
        """The model of sentence-transformers, loaded on first use.

        Raises:
            DataError: It is no multi-vector model.
        """
        with self.loading:
            return self._network

    @cached_property
    def _network(self) -> Any:
        self._check_whole()
        from sentence_transformers import MultiVectorEncoder

        with without_bars():
            network: Any = MultiVectorEncoder(
                str(self.path),
                model_kwargs={"dtype": self.dtype, "use_safetensors": True},
                **self.options,
            ).eval()
        if self.dtype != "float32":
            pool_in_float32(network)
        return network

    def _check_whole(self) -> None:
        """Refuse what would get a projection of random weights, or reads no texts."""
        named = " ".join(self.config.get("architectures") or ["nothing"])
        if named.endswith("ForRetrieval"):
            raise DataError(f"{self.name}: {named} compares texts with pictures, not with texts")
        dense = any(str(entry.get("type", "")).endswith(".Dense") for entry in self.modules)
        multi = bool(self.modules) and self.kind in ("MultiVectorEncoder", "ColBERT")
        if not (multi or dense or "HF_ColBERT" in named):
            raise DataError(
                f"{self.name}: no multi-vector model (config.json names {named}, and modules.json "
                "no layer that projects tokens); its projection would be random"
            )

    def prompt(self, role: Role) -> str:
        """What stands before texts; loads the model.

        Args:
            role: ``query`` or ``document``.

        Returns:
            The words, possibly none.
        """
        prompts: dict[str, str] = self.network.prompts
        names = (*PROMPT_NAMES[role], self.network.default_prompt_name or "")
        return next((prompts[name] or "" for name in names if name in prompts), "")

    def limit(self, role: Role) -> int | None:
        """Tokens of a text that are read; loads the model.

        Args:
            role: ``query`` or ``document``.

        Returns:
            The number, or None where there is no limit.
        """
        first = self.network[0]
        own = first.query_length if role == "query" else first.document_length
        expansion = first.query_expansion if role == "query" else None
        if expansion is not None and (own or expansion["strategy"] == "fixed"):
            fixed = expansion["strategy"] == "fixed"
            own = expansion["length"] if fixed else max(own, expansion["length"])
        most = readable(self.network)
        return most if own is None else int(own) if most is None else min(int(own), most)

    def lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        """How many tokens texts are, prompt and special tokens included; loads the model.

        Args:
            texts: The texts.
            role: ``query`` or ``document``.

        Returns:
            The number for each.
        """
        prompt, tokenizer = self.prompt(role), self.network.tokenizer
        out: list[int] = []
        for start in range(0, len(texts), _TOKENIZED_AT_A_TIME):
            part = [prompt + text for text in texts[start : start + _TOKENIZED_AT_A_TIME]]
            read = tokenizer(part, truncation=False, return_attention_mask=False, verbose=False)
            out += [len(ids) for ids in read["input_ids"]]
        return out

    def encode(self, texts: Sequence[str], role: Role) -> tuple[Tensor, Tensor]:
        """The vectors of tokens that count.

        Args:
            texts: The texts, at least one; they are one batch.
            role: ``query`` or ``document``.

        Returns:
            Vectors, float32 ``(n, tokens, dim)``, and which of them there are, bool ``(n,
            tokens)``: texts with fewer tokens are filled up.
        """
        import torch

        encode = self.network.encode_query if role == "query" else self.network.encode_document
        found = encode(
            list(texts), prompt=self.prompt(role), batch_size=len(texts), show_progress_bar=False
        )
        vectors = torch.nn.utils.rnn.pad_sequence([one.float() for one in found], batch_first=True)
        sizes = torch.tensor([len(one) for one in found], device=vectors.device)
        there = torch.arange(vectors.shape[1], device=vectors.device) < sizes[:, None]
        return vectors, there


@dataclass(frozen=True)
class LateInteraction(PointwiseReranker):
    """Reranks by MaxSim; each distinct document of a run is encoded once, for all its queries.

    In float32 a score depends on the other pairs by no more than 1e-5 of the scores' size. Texts
    beyond the model's lengths are cut, counted, and the count logged as a warning once per call.
    Vectors of documents are dropped as soon as they are scored, so that memory does not grow with
    the run. (Beyond half a million tokens of queries these are taken part by part, and a document
    is encoded once for each part.) A document of which no token counts is scored as if it were the
    opposite of each token of the query, the least that there is for vectors of length 1.

    Args:
        model: A multi-vector model: its folder, its hub id, or a `MultiVectorModel`, which also
            says device and dtype.
        documents: Where the words of hits are: a corpus, or an index that keeps words.
        k: Hits of each query that are reranked; None means all.
        rest: What becomes of hits below: ``keep`` them behind, in their order, or ``cut`` them.
        batch_tokens: Tokens of documents that pass through the model together, padding included; by
            default 2,048 on the CPU and 131,072 elsewhere.

    Raises:
        DataError: A setting is none of these.
    """

    model: MultiVectorModel | str | Path
    documents: Corpus | Index | None = None
    _: dataclasses.KW_ONLY
    k: int | None = None
    rest: Rest = "keep"
    batch_tokens: int | None = knob(None)

    def __post_init__(self) -> None:
        """Check the settings; nothing is loaded."""
        super().__post_init__()
        if not isinstance(self.model, MultiVectorModel):
            object.__setattr__(self, "model", MultiVectorModel(self.model))
        size = self.batch_tokens
        if size is not None and not (isinstance(size, int) and size >= 1):
            raise DataError(f"batch_tokens is a whole number of at least 1; got {size!r}")

    @property
    def name(self) -> str:
        """What the trace calls it."""
        return "late-interaction"

    def __repr__(self) -> str:
        """The call that builds it: the model, and what is not the default."""
        return call_of(self, self._model)

    @property
    def _model(self) -> MultiVectorModel:
        assert isinstance(self.model, MultiVectorModel)
        return self.model

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.floating]:
        """MaxSim of pairs, float32 ``(n,)``."""
        queries = list(dict.fromkeys(query for query, _ in pairs))
        docs = list(dict.fromkeys(doc for _, doc in pairs))
        query_at = {text: place for place, text in enumerate(queries)}
        doc_at = {text: place for place, text in enumerate(docs)}
        of_query = np.array([query_at[query] for query, _ in pairs])
        of_doc = np.array([doc_at[doc] for _, doc in pairs])
        scores = np.empty(len(pairs), np.float32)
        sizes = self._lengths(docs, "document")
        done = 0
        for part in in_token_batches(self._lengths(queries, "query"), _QUERY_TOKENS):
            mine = np.flatnonzero(np.isin(of_query, part))
            vectors, there = self._model.encode([queries[place] for place in part], "query")
            place_of = np.zeros(len(queries), np.int64)
            place_of[part] = np.arange(len(part))
            used, which = np.unique(of_doc[mine], return_inverse=True)
            by_doc = np.argsort(which, kind="stable")
            starts = np.searchsorted(which[by_doc], np.arange(len(used) + 1))
            for batch in in_token_batches([sizes[doc] for doc in used], self._batch_tokens):
                found, real = self._model.encode([docs[doc] for doc in used[batch]], "document")
                rows = [by_doc[starts[doc] : starts[doc + 1]] for doc in batch]
                own = np.repeat(np.arange(len(batch)), [len(some) for some in rows])
                asked = mine[np.concatenate(rows)]
                scores[asked] = self._maxsim(
                    vectors, there, found, real, place_of[of_query[asked]], own
                )
                done += len(asked)
                report_headway(done)
        return scores

    @cached_property
    def _batch_tokens(self) -> int:
        at_cpu = self._model.network.device.type == "cpu"
        return self.batch_tokens or (2_048 if at_cpu else 131_072)

    def _lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        """Tokens that are read of each text; those that are cut are told."""
        sizes, limit = self._model.lengths(texts, role), self._model.limit(role)
        if limit is None:
            return sizes
        cut = sum(size > limit for size in sizes)
        count("cut documents" if role == "document" else "cut queries", cut)
        if cut:
            log.warning(
                "%s: %d of %d %s texts were longer than %d tokens and were cut there",
                self._model.name, cut, len(sizes), role, limit,
            )  # fmt: skip
        return [min(size, limit) for size in sizes]

    def _maxsim(
        self,
        queries: Tensor,
        asking: Tensor,
        docs: Tensor,
        real: Tensor,
        of_query: NDArray[np.int64],
        of_doc: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        import torch

        (_, wide, dim), long = queries.shape, docs.shape[1]
        size = max(1, _ELEMENTS // (wide * long + (wide + long) * dim + 1))
        out = []
        with torch.inference_mode():
            for start in range(0, len(of_query), size):
                left = torch.as_tensor(of_query[start : start + size], device=queries.device)
                right = torch.as_tensor(of_doc[start : start + size], device=docs.device)
                out.append(maxsim(queries[left], asking[left], docs[right], real[right]))
            scores = torch.cat(out)
            if self._model.network.similarity_fn_name == "meanmaxsim":
                counts = asking.sum(1).clamp(min=1)
                scores = scores / counts[torch.as_tensor(of_query, device=counts.device)]
            return np.asarray(scores.cpu().numpy(), np.float32)


def maxsim(queries: Tensor, asking: Tensor, docs: Tensor, real: Tensor) -> Tensor:
    """MaxSim of pairs: ``sum_i max_j q_i . d_j`` over the tokens that count.

    Args:
        queries: float32 ``(pairs, i, dim)``.
        asking: Which tokens of queries count, bool ``(pairs, i)``.
        docs: float32 ``(pairs, j, dim)``.
        real: Which tokens of documents count, bool ``(pairs, j)``.

    Returns:
        float32 ``(pairs,)``; where no token of a document counts, minus the sum of the lengths of
        the query's vectors.
    """
    if docs.shape[1]:
        found = queries @ docs.transpose(1, 2)
        best = found.masked_fill_(~real[:, None, :], float("-inf")).amax(2)
    else:
        best = queries.new_full(queries.shape[:2], float("-inf"))
    best = best.where(real.any(1)[:, None], -queries.norm(dim=2))
    return best.masked_fill(~asking, 0.0).sum(1)


def late_interaction_reranker(
    model: str,
    documents: Corpus | Index | None = None,
    *,
    k: int | None = None,
    rest: Rest = "keep",
    device: str | None = None,
    dtype: str = "float32",
    batch_tokens: int | None = None,
) -> LateInteraction:
    """A `LateInteraction` from plain values, as the command line and files have them.

    Args:
        model: Its folder or hub id.
        documents: Where the words of hits are.
        k: Hits of each query that are reranked.
        rest: What becomes of hits below.
        device: See `MultiVectorModel`.
        dtype: See `MultiVectorModel`.
        batch_tokens: Tokens that pass through the model together.

    Returns:
        The reranker.
    """
    own = MultiVectorModel(model, device=device, dtype=dtype)
    return LateInteraction(own, documents, k=k, rest=rest, batch_tokens=batch_tokens)
