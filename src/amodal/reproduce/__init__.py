"""Experiments as data: files that say what is trained, tested and shown; runs that are never repeated."""
