"""The workers that are not the chief: they make the steps of its trainings with it, and keep nothing."""

from __future__ import annotations

import tempfile

from bibench_tf.errors import BibenchError
from bibench_tf.results.runs import RunSpec, RunStore
from bibench_tf.training import distribution, runner
from bibench_tf.training.distribution import Devices
from bibench_tf.training.session import Session


def follow(session: Session, devices: Devices) -> None:
    """Take part in every training that the chief announces, until it says that there is no more.

    Nothing is read from the results folder or written to it. Raises BibenchError where this machine has other data than
    the chief, and SessionEnded when the chief or another worker is gone.
    """
    from bibench_tf.training import loop

    load = runner.data_loader(session)
    while announced := devices.announced():
        spec = RunSpec.from_dict(announced["spec"])
        runner.check_files([spec], session)
        data = load(spec)
        if data.fingerprint != announced["fingerprint"]:
            raise BibenchError(f"{spec.dataset} is not the same on all workers: copy the chief's data to this one.")
        with tempfile.TemporaryDirectory(prefix="bibench-") as folder:
            try:
                store = RunStore(folder)
                store.folder(spec).mkdir(parents=True)
                runner.learn(spec, store, data, session)
            except loop.Diverged:
                continue  # on the chief as well
            except Exception as error:
                raise distribution.ended(error) from error


def dismiss(session: Session) -> None:
    """Let the followers go."""
    devices = distribution.devices(session.strategy)
    if devices is not None:
        devices.announce({})
