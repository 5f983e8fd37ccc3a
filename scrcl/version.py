"""The version of this software."""

VERSION = "0.12.0"
