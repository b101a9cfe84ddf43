"""`python -m bibench_tf` is `bibench`, which imports nothing from the current folder either."""

import os
import sys

# `python -m` has put the current folder first, where a file such as `json.py` may lie beside a downloaded model.
if sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

from bibench_tf.cli import main  # noqa: E402

main()
