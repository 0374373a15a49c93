"""The built-in issuer as an authorization server, for development: its codes, its rules for redirects, its directory file."""
