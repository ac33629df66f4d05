"""One HTML file that shows what commands found: no network, no server, nothing beside it.

The way of a page: ``documents`` reads JSON, ``subjects`` puts together what is about one model, the ``sections`` make
elements of it, and ``page`` writes them with style, script and data. Elements are made by ``tree`` alone, so that no
name of a model ever becomes markup.
"""
