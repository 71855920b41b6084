"""The systems, one file or folder each; :mod:`amodal.systems` is their table."""
