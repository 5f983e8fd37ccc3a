"""The version of this software."""

VERSION = "0.9.0"
