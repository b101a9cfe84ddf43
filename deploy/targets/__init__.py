"""Targets by name: `host`, `adb`, `adb:SERIAL`, `ssh:[USER@]HOST`, and those of plug-ins.

A module in this folder, or outside of the package, adds a kind of target with `register`.
"""

from bibench_tf.deploy.targets.base import TARGETS as TARGETS
from bibench_tf.deploy.targets.base import Access as Access
from bibench_tf.deploy.targets.base import Device as Device
from bibench_tf.deploy.targets.base import Measurement as Measurement
from bibench_tf.deploy.targets.base import OperationTime as OperationTime
from bibench_tf.deploy.targets.base import Round as Round
from bibench_tf.deploy.targets.base import Settings as Settings
from bibench_tf.deploy.targets.base import Target as Target
from bibench_tf.deploy.targets.base import TargetKind as TargetKind
from bibench_tf.deploy.targets.base import kind_of as kind_of
from bibench_tf.deploy.targets.base import open_target as open_target
from bibench_tf.deploy.targets.base import register as register
