"""The permit: what carries an Allow to the one place where the first byte of a tool call is written."""

from __future__ import annotations

from typing import Final, NoReturn

from interlock.core.decision import Allow
from interlock.policy.errors import PermitError

_MINT: Final = object()


class Permit:
    """The right to execute one claimed call once, before `expires_monotonic_s`. Made only by `mint`; never copied or stored.

    `control_epoch` is the epoch that its claim was made at, `scopes` are the controls that can stop it.
    """

    __slots__ = (
        "_unspent",
        "call_hash",
        "claim_id",
        "control_epoch",
        "expires_monotonic_s",
        "facts_digest",
        "release_digest",
        "revoked",
        "scopes",
    )

    def __init__(
        self,
        *,
        seal: object,
        decision: Allow,
        call_hash: str,
        claim_id: str,
        expires_monotonic_s: float,
        control_epoch: int,
        scopes: tuple[str, ...],
    ) -> None:
        if seal is not _MINT:
            raise PermitError("a permit is minted from a decision, never constructed")
        self.call_hash = call_hash
        self.claim_id = claim_id
        self.expires_monotonic_s = expires_monotonic_s
        self.facts_digest = decision.facts_digest
        self.release_digest = decision.release_digest
        self.control_epoch = control_epoch
        self.scopes = scopes
        self.revoked = False
        self._unspent = [True]

    def revoke(self) -> bool:
        """Use the permit up without executing. False when it was used before: then the call may have been sent."""
        try:
            self._unspent.pop()
        except IndexError:
            return False
        self.revoked = True
        return True

    def spend(self, *, call_hash: str, now_monotonic_s: float) -> None:
        """Use the permit up; call this immediately before the first byte is sent, and send nothing when it raises.

        Any attempt uses it up, also a refused one.

        Args:
            call_hash: hash of the very call that is about to be sent.
            now_monotonic_s: seconds on the clock that `expires_monotonic_s` was set on.

        Raises:
            PermitError: it was used before, has expired, or belongs to another call.
        """
        try:
            self._unspent.pop()  # atomic, so of two callers only one gets past this line
        except IndexError:
            said = "the permit was revoked" if self.revoked else "the permit was used before"
            raise PermitError(said) from None
        if call_hash != self.call_hash:
            raise PermitError("the permit belongs to another call")
        if not now_monotonic_s < self.expires_monotonic_s:
            raise PermitError("the permit has expired")

    def __copy__(self) -> NoReturn:
        """Refused: two permits would be two executions."""
        raise PermitError("a permit cannot be copied")

    def __deepcopy__(self, memo: object) -> NoReturn:
        """Refused: two permits would be two executions."""
        raise PermitError("a permit cannot be copied")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refused: a permit does not outlive its process."""
        raise PermitError("a permit cannot be stored")


def mint(
    decision: Allow,
    *,
    call_hash: str,
    claim_id: str,
    expires_monotonic_s: float,
    control_epoch: int,
    scopes: tuple[str, ...],
) -> Permit:
    """A permit for one execution of the call that was allowed and claimed.

    Raises:
        PermitError: `decision` is not an Allow, or the call, claim or scopes are not named.
    """
    if type(decision) is not Allow or not call_hash or not claim_id or not scopes:
        raise PermitError("only an Allow, for a named call and claim that controls can stop, becomes a permit")
    return Permit(
        seal=_MINT,
        decision=decision,
        call_hash=call_hash,
        claim_id=claim_id,
        expires_monotonic_s=expires_monotonic_s,
        control_epoch=control_epoch,
        scopes=scopes,
    )
