"""The version of this software."""

VERSION = "0.10.0"
