"""Rows and texts: sources that are pinned by hash, typed rows, chat templates, contamination.

Knows no model library.
"""
