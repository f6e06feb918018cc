"""Engines: ways through the vectors that a dense index stores.

`flat` is exact and always there; `binary` and `int8` scan smaller copies and need no training;
`faiss` builds what FAISS's factory strings name. An engine only proposes: ids, order, deletions,
conditions and final scores are the index's own, so that they are the same behind every engine.
"""
