"""The version of this software."""

VERSION = "0.13.0"
