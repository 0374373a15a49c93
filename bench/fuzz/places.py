"""Addresses that more than one part needs to know."""

from __future__ import annotations

from typing import Final

CALLS: Final = "/v1/calls"
