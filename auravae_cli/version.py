"""The version, which is set only here."""

__version__ = "0.1.0"
