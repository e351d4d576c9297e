"""`python -m bert_ft`: what `accelerate launch -m bert_ft` starts."""

import os
import sys

# `-m` has put the working directory there, and somebody's torch.py may lie in it
if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]

from bert_ft.cli import main

main()
