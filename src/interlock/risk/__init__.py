"""How worried are we? Pure: texts, arguments and counts in, evidence and a posture out.

INVARIANT: more evidence, or worse, never gives a lower posture.
"""
