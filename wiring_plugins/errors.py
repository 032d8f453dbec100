"""Errors a user can act on: each is a sentence that says what was given, what is legal and what to do next."""
from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class WiringError(Exception):
    """A mistake that the user can mend. Commands print its text and end with `exit_code`."""

    exit_code = 2


class RegistrationError(WiringError):
    """A plugin registers something that cannot be used."""


class CorruptFile(WiringError):
    """A file is not what it says it is: truncated, altered, or of another format."""


class DataUnavailable(WiringError):
    """Data that has to come from the network, or from the user, cannot be reached."""

    exit_code = 3


class NotEnoughMemory(WiringError):
    """The work does not fit into this machine's memory."""

    exit_code = 4


class UnknownName(WiringError):
    """A name that nothing is registered under.

    >>> print(UnknownName("model", "wiring-kaimin", ["wiring-kaiming", "pixels"], listed_by="wiring models"))
    There is no model 'wiring-kaimin'. Did you mean 'wiring-kaiming'? `wiring models` lists them all.
    """

    def __init__(self, kind: str, given: str, legal: Iterable[str], *, listed_by: str = "", owner: str = ""):
        legal = sorted(set(legal))
        near = get_close_matches(given, legal, n=3, cutoff=0.5)
        sentences = [f"There is no {kind} {given!r}{f' in {owner}' if owner else ''}."]
        if near:
            sentences.append(f"Did you mean {' or '.join(map(repr, near))}?")
        elif len(legal) <= 8:
            sentences.append(f"Legal: {', '.join(map(repr, legal)) or 'none'}.")
        if listed_by:
            sentences.append(f"`{listed_by}` lists them all.")
        super().__init__(" ".join(sentences))
        self.given, self.legal, self.near = given, legal, near

    def __reduce__(self):
        return WiringError, self.args  # what other processes need of it is the sentence
