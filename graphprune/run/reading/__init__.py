"""Folders of images, sounds and texts as inputs: read, and brought to what a model wants.

``asked`` has what a user may say, ``kinds`` what a folder holds; ``images``, ``audio`` and ``text`` each settle what is
done, once for a job, and read; ``folders`` puts them together. ``configs`` finds files of others beside a model, and
``looks`` and ``audio`` turn these, and a model's own metadata, which ``exported`` reads, into settings. ``batches``
says what is left over.
"""
