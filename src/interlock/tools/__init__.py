"""Connectors: the only code that touches the world. Importable from the gateway and the composition root alone."""
