"""Smaller or faster indexes made of an index: from its stored vectors, nothing encoded again.

`methods` says what a method's name stands for, `build` makes the second index beside the first, and
`figures` says what was won and what was lost. A method is registered under "compress": a function
``(index, argument) -> Plan``.
"""
