"""What runSC.py, runST.py and draw_DEGs.py share: they run a command, with data and results beside the script.

The work is in `scrcl/`: `scrcl/commands/` reads flags and writes files, `scrcl/analysis.py` is the whole analysis on
one screen. In a notebook, `import scrcl`.
"""

from scrcl.commands.script import script

__all__ = ["script"]
