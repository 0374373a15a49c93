"""Interlock: the model proposes, the control plane decides, tools execute only through gates."""

__version__ = "0.1.0"
