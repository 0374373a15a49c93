"""Logging in with a browser: the login that goes on behind the page's cookie, letting devices in, letting clients act."""
