"""The version of this software."""

VERSION = "0.8.1"
