"""All errors that a user can cause or meet, as one tree.

AuraVaeError              says what, where, found, expected, and what to do next
├─ UsageError             what was asked for contradicts itself, or names nothing
├─ MissingInputError      a named input that is not there, or cannot be one
├─ InputImageError        a picture that cannot be read as one
├─ LatentFileError        a file that is no latent of ours, or a damaged one
│  ├─ LatentHeaderError   the header is missing, of another version, or contradicts the tensor
│  └─ LatentMismatchError a sound latent, but of another model or representation
├─ OutputError            a result that cannot or must not be written where it was asked for
│  ├─ ExistingOutputError another file is there, which is not replaced unasked
│  └─ NoRoomError         nothing can be written there any more: the run ends
├─ StoreError             a store that is damaged, unreachable, or holds latents of other settings
├─ TooManyFailuresError   more inputs failed than the user allows
├─ ComputeError           one picture or latent is too large for the memory, or gave NaN
├─ ConfigError            faults of a configuration file, all at once
└─ ModelError             nothing can run: the command ends with exit code 3
   ├─ WeightsError        weights damaged, or of another architecture
   │  └─ MissingWeightsError  of a known model, and not on this machine
   └─ DeviceError         the device or the number format is not available

Anything else that is raised is a bug and keeps its traceback.
"""

from __future__ import annotations


class AuraVaeError(Exception):
    """Base of all errors whose message is meant for the user."""


def reason_of(error: Exception) -> str:
    """Why one input of many failed, in a sentence: an error's own words, except for memory."""
    return "not enough memory" if isinstance(error, MemoryError) else str(error)


class UsageError(AuraVaeError, ValueError):
    """What was asked for contradicts itself, or names nothing; ``argument`` is what to change."""

    def __init__(self, message: str, argument: str | None = None) -> None:
        self.argument = argument
        super().__init__(message)


class MissingInputError(AuraVaeError):
    """A named input is not there, or is a file of a kind that the command does not take."""


class InputImageError(AuraVaeError):
    """A picture is unreadable, empty, too large, or in a form that has no defined colours."""


class LatentFileError(AuraVaeError):
    """A latent file is unreadable, damaged, or holds values that cannot be decoded."""


class LatentHeaderError(LatentFileError):
    """A latent's header is missing, of an unknown version, or contradicts its tensor."""


class LatentMismatchError(LatentFileError):
    """A latent belongs to other weights or another representation than the model at hand."""


class OutputError(AuraVaeError):
    """An output exists already, collides with another, or cannot be written."""


class ExistingOutputError(OutputError):
    """Another file is in a result's place, and is not replaced unasked."""


class NoRoomError(OutputError):
    """A disk is full, a quota is used up, or a mount is read-only: no other output can be written there."""


class StoreError(AuraVaeError):
    """A store of latents is damaged, unreachable, or was made by other weights or settings."""


class TooManyFailuresError(AuraVaeError):
    """A run over many inputs was ended since more of them failed than is allowed."""


class ComputeError(AuraVaeError):
    """The model ran, but not on this input: out of memory at batch 1, or values not finite."""


class ConfigError(AuraVaeError):
    """A configuration file has faults; the message lists all of them, in ``lines``."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        super().__init__("\n".join(lines))


class ModelError(AuraVaeError):
    """The model cannot run at all."""


class WeightsError(ModelError):
    """Weights are missing, damaged, or do not fit the architecture."""


class MissingWeightsError(WeightsError):
    """The weights of a known model are not on this machine."""


class DeviceError(ModelError):
    """The requested device is absent, or cannot run the requested number format."""
