"""The version of this software."""

VERSION = "0.7.0"
