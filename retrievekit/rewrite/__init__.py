"""Generative rewriting: queries and documents with the words that a language model adds.

`hyde`, `query2doc` and `grf` rewrite queries, each a stage to stand before a search; `doc2query`
writes queries onto documents before they are indexed. `drawing` is how they all ask a model.
"""
