"""`python -m llmtune`: the same as the console script, without the working directory on the path."""

import os
import sys

if sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

from llmtune.cli.main import entry

if __name__ == "__main__":
    entry()
