"""Commands: how people start Interlock and speak to it."""
