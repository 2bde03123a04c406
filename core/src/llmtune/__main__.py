"""`python -m llmtune`: the same as the console script, without the working directory on the path."""

import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]

from llmtune.cli.main import entry

if __name__ == "__main__":
    entry()
