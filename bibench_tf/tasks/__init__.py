"""The tasks: kinds of learning, each with its loss, its metrics and the form of its predictions.

A task of your own is one file with a class that is decorated by `register`; see docs/tasks.md. `get` imports no
TensorFlow.
"""

from __future__ import annotations

from bibench_tf.tasks.base import TASKS, Evaluation, Task, register

# The keys of all tasks, and the task of a key.
names, get = TASKS.names, TASKS.get
