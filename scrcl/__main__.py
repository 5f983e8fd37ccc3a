"""`python -m scrcl` is the console command `scrcl`, for a copy that is not installed."""

import sys

from scrcl.commands.script import console

if __name__ == "__main__":
    sys.exit(console())
