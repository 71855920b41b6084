"""Runs beside each other: their metrics, curves, settings and pictures on one page, behind ``amodal compare``."""
