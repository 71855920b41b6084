"""Predicting many files: which ones, in how many processes, resumed after a kill."""
