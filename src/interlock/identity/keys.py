"""Signing keys on disk, never in the database: a folder nobody else can read, a file a key, safe for several starters."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import OKPKey

from interlock.identity.errors import KeyFolderError

# What every gateway of an installation must have the same of: a token, mark or head of one is read by the others.
SHARED: Final = ("heads", "login", "mark", "person", "session")
_PRIVATE_FOLDER = 0o700
_PRIVATE_FILE = 0o600


class KeyRing:
    """Ed25519 keys by purpose (`issuer`, `session`, `heads`). The newest signs; all of a purpose verify."""

    def __init__(self, folder: Path) -> None:
        """Open or make the folder. Raises `KeyFolderError` when others could read or replace it."""
        folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        _refuse_unless_private(folder, _PRIVATE_FOLDER)
        self._folder = folder
        self._loaded: dict[Path, OKPKey] = {}

    def signing(self, purpose: str) -> OKPKey:
        """The newest key of a purpose; one is made when there is none."""
        found = self._of(purpose)
        if not found:
            self._create(purpose, 1)
            found = self._of(purpose)
        return found[-1]

    def verifying(self, purpose: str) -> dict[str, OKPKey]:
        """All keys of a purpose by key id."""
        self.signing(purpose)
        return {str(key.kid): key for key in self._of(purpose)}

    def rotate(self, purpose: str) -> OKPKey:
        """Make a new key that signs from now on; older ones go on verifying until their files are removed."""
        self._create(purpose, len(self._of(purpose)) + 1)
        return self.signing(purpose)

    def private_bytes(self, purpose: str) -> tuple[str, bytes]:
        """Key id and the 32 raw private bytes of the signing key."""
        key = self.signing(purpose)
        return str(key.kid), _private_bytes(key, purpose)

    def all_private_bytes(self, purpose: str) -> tuple[bytes, ...]:
        """The 32 raw private bytes of every key of a purpose, the signing key's first."""
        self.signing(purpose)
        return tuple(_private_bytes(key, purpose) for key in reversed(self._of(purpose)))

    def public_bytes(self, purpose: str) -> dict[str, bytes]:
        """The 32 raw public bytes of every key of a purpose, by key id."""
        found = {}
        for kid, key in self.verifying(purpose).items():
            private = key.private_key
            if isinstance(private, Ed25519PrivateKey):
                found[kid] = private.public_key().public_bytes_raw()
        return found

    def jwks(self, *purposes: str) -> dict[str, Any]:
        """The public keys of some purposes as a JWK set (RFC 7517)."""
        keys = [key.as_dict(private=False) for purpose in purposes for key in self.verifying(purpose).values()]
        return {"keys": [{**key, "use": "sig", "alg": "Ed25519"} for key in keys]}

    def _of(self, purpose: str) -> list[OKPKey]:
        return [self._load(path) for path in sorted(self._folder.glob(f"{purpose}-*.jwk"))]

    def _load(self, path: Path) -> OKPKey:
        if path not in self._loaded:
            if path.is_symlink():
                raise KeyFolderError(f"{path} is a link; keys must be plain files")
            _refuse_unless_private(path, _PRIVATE_FILE)
            try:
                self._loaded[path] = OKPKey.import_key(msgspec.json.decode(path.read_bytes(), type=dict[str, str | list[str]]))
            except (ValueError, TypeError, msgspec.MsgspecError) as error:
                raise KeyFolderError(f"{path} holds no usable key; restore it from a backup or remove it") from error
        return self._loaded[path]

    def _create(self, purpose: str, number: int) -> None:
        key = OKPKey.generate_key("Ed25519", auto_kid=True)
        path = self._folder / f"{purpose}-{number:04}.jwk"
        descriptor, temporary = tempfile.mkstemp(dir=self._folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(key.as_dict(private=True)))
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link, not a rename: of several starters the first one's key stays.
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            Path(temporary).unlink()


def _private_bytes(key: OKPKey, purpose: str) -> bytes:
    private = key.private_key
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFolderError(f"the key {purpose} is not an Ed25519 private key; remove its file to have a new one made")
    return private.private_bytes_raw()


def _refuse_unless_private(path: Path, wanted: int) -> None:
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise KeyFolderError(f"{path} belongs to another user; keys must belong to the user Interlock runs as")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise KeyFolderError(f"{path} may be read by others; run `chmod {wanted:o} {path}`")
