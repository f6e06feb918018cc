"""Language models behind one interface: decoders, encoder-decoders, and services on the network.

`chat` says what all share; one file per kind of model stands beside it.
"""
