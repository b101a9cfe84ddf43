"""What an import changes in the process."""

import os
import subprocess
import sys


def test_an_import_sets_two_variables_and_a_logger_and_imports_no_tensorflow():
    script = (
        "import os, sys, logging\n"
        "before = dict(os.environ)\n"
        "import bibench_tf\n"
        "changed = {name for name in os.environ if os.environ[name] != before.get(name)}\n"
        "print(changed <= {'TF_CPP_MIN_LOG_LEVEL', 'TF_USE_LEGACY_KERAS'}, os.environ['TF_CPP_MIN_LOG_LEVEL'])\n"
        "print('tensorflow' in sys.modules, 'larq' in sys.modules)\n"
        "print(logging.getLogger('larq.layers_base').level, logging.getLogger('tensorflow').level)"
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=kept, check=True)
    assert done.stdout.split() == ["True", "3", "False", "False", "40", "0"]
