"""Scoring: pure functions over arrays, the measurements of one image, and the mergeable scorer."""
