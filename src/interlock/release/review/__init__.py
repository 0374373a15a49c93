"""Contracts before they are reviewed: what a listing suggests, drafts, what a person answers, and what a listing hides."""
