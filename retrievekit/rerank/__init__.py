"""Rerankers: models that read a query and its candidates together and put them in a better order.

`base` holds what all share: `rank` for a list of texts, the pipeline stage for a run. One file per
method stands beside it.
"""
