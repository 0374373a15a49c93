"""Humans: who may answer what a call waits for, and what they are shown."""
