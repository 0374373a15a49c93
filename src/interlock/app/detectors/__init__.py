"""Detectors of hostile text that take their time: a classifier on embeddings, and services elsewhere."""
