"""The vocabulary: frozen types, canonical JSON, clock and id protocols. No I/O happens here."""
