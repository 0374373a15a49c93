"""The account of what happened: events that are appended, chained, signed and verified, and never edited."""
