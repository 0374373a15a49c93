"""The closed sets of words that every other package speaks in."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Effect(StrEnum):
    """What an operation may do to the world. A contract holds a set of them."""

    READ = "read"
    WRITE = "write"
    DESTRUCTIVE = "destructive"
    EGRESS = "egress"


class Classification(StrEnum):
    """How sensitive data is, from least to most; `rank` gives the order."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    PII = "pii"

    @property
    def rank(self) -> int:
        """0 for public to 3 for pii, for comparisons in policy."""
        return _CLASSIFICATION_ORDER.index(self)


_CLASSIFICATION_ORDER = (
    Classification.PUBLIC,
    Classification.INTERNAL,
    Classification.CONFIDENTIAL,
    Classification.PII,
)


class Posture(StrEnum):
    """How worried we are about a lineage. Risk only ratchets it up; a person lowers it."""

    NORMAL = "normal"
    GUARDED = "guarded"
    READ_ONLY = "read_only"
    HALTED = "halted"


class Layer(StrEnum):
    """The five policy layers. Each must say yes (DESIGN section 4)."""

    IDENTITY = "identity"
    DELEGATION = "delegation"
    CAPABILITY = "capability"
    DATA = "data"
    GUARD = "guard"


class Question(IntEnum):
    """The seven questions a decision answers (SPEC P1 to P7)."""

    WHICH_TOOL = 1
    MAY_THE_AGENT = 2
    FOR_THIS_USER = 3
    WHICH_OPERATION = 4
    WHICH_DATA = 5
    WHO_APPROVES = 6
    WHAT_IS_FORBIDDEN = 7


LAYER_QUESTION = {
    Layer.IDENTITY: Question.MAY_THE_AGENT,
    Layer.DELEGATION: Question.FOR_THIS_USER,
    Layer.CAPABILITY: Question.WHICH_OPERATION,
    Layer.DATA: Question.WHICH_DATA,
    Layer.GUARD: Question.WHAT_IS_FORBIDDEN,
}


class Scope(StrEnum):
    """What a Control switches. All but `fleet` carry an id; a user's is `tenant/user`."""

    FLEET = "fleet"
    TENANT = "tenant"
    ENVIRONMENT = "environment"
    AGENT = "agent"
    USER = "user"
    TOOL = "tool"
    OPERATION = "operation"
    SOURCE = "source"
    SESSION = "session"


QUARANTINE = "quarantine"
"""A scope that no person sets: an operation whose listing changed, until somebody accepts it (`app/upstream_watch.py`)."""


RESTORED = "restored"
"""A scope that no person sets: its posture holds for every call after a restore was noticed (`app/restoring.py`)."""


class Origin(StrEnum):
    """Where an argument came from, best first; of several, the worst one counts.

    `planned` is what the plan holds that was sealed before anything untrusted was read: the model's own choice, and nobody
    else's; `chosen` is what a choice of such a plan (the largest file) comes to. `weak` is a match that may be chance: the
    value is short or common. `sourced` is a value from the very field of a result that such a plan says it will come from,
    `quoted` one that stands in the text of a result that it says so of: where to look was nobody else's choice, what stands
    there may be. `selected` is a choice among the fields of a list, made while tainted. `computed` is an amount, a date or
    a time of day that matches nothing that has entered the context, `model` any other such value.
    """

    USER = "user"
    DERIVED = "derived"
    TRUSTED = "trusted"
    PLANNED = "planned"
    CHOSEN = "chosen"
    WEAK = "weak"
    SOURCED = "sourced"
    FIELD = "field"
    COMPUTED = "computed"
    SELECTED = "selected"
    QUOTED = "quoted"
    MODEL = "model"
    ASSERTED = "asserted"
    UNTRUSTED = "untrusted"

    @property
    def rank(self) -> int:
        """0 for the best; for comparisons."""
        return _ORIGIN_ORDER.index(self)

    @property
    def is_doubtful(self) -> bool:
        """Whether nobody and nothing that may be relied on stands behind it: `model`, `asserted`, `untrusted`."""
        return self.rank >= Origin.MODEL.rank


_ORIGIN_ORDER = tuple(Origin)
