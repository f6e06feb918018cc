"""Feedback: from the first hits of a search to a better query for the next one.

``retriever >> feedback >> retriever``. `vectors` moves queries towards the vectors of their hits,
`terms` gives them weighted terms of their hits; both read what an index holds of its documents.
"""
