"""The version of this software."""

VERSION = "0.14.0"
