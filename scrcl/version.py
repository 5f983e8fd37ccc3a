"""The version of this software."""

VERSION = "0.6.0"
