"""The version of this software."""

VERSION = "0.11.0"
