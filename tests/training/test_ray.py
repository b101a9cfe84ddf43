"""Runs as the tasks of a Ray cluster of two nodes, one of which is killed.

Run as a script, this file is the benchmark: `RESULTS ADDRESS`.
"""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bibench_tf.errors import BibenchError
from bibench_tf.process import PLUGINS_VARIABLE
from bibench_tf.results import checkpoints
from bibench_tf.results.runs import RunStore
from bibench_tf.training import queue
from bibench_tf.training.executors import local
from bibench_tf.training.session import Session

sys.path.append(str(Path(__file__).parents[1]))  # as pytest does, for the script
import tiny_data  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

SPECS = tiny_data.specs("bnn", "recu", epochs=12)

if __name__ == "__main__":
    results, address = sys.argv[1:]
    session = Session(Path(results), quiet=True, executor="ray", ray_address=address, cpus_per_run=1)
    queue.execute(SPECS, session)
    sys.exit()


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_message_says_what_to_install(tmp_path):
    with pytest.raises(BibenchError, match=r"bibench-tf\[ray\]"):
        queue.execute(tiny_data.specs(), Session(tmp_path, quiet=True, executor="ray"))


def test_a_node_that_dies_costs_no_run_and_changes_no_score(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv(PLUGINS_VARIABLE, tiny_data.__file__)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_register_timeout_seconds", "600")  # the tests may have to share their cores
    store = RunStore(tmp_path / "ray")
    for name in ("bibench_tf", "numpy", "tensorflow"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'reached')!r}, 'a').write({name!r})")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    doomed = cluster.add_node(num_cpus=1)
    benchmark = subprocess.Popen([sys.executable, __file__, "ray", cluster.address], cwd=tmp_path)
    try:
        # The first run has an epoch behind it when its node goes; only then there is another one to go on.
        while not checkpoints.epochs_completed(store.folder(SPECS[0])):
            assert benchmark.poll() is None, "the benchmark ended before the first epoch"
            time.sleep(0.01)
        cluster.remove_node(doomed, allow_graceful=False)
        assert store.result(SPECS[0]) is None, "the node died after its run was done"
        cluster.add_node(num_cpus=1)
        assert benchmark.wait(600) == 0
    finally:
        benchmark.kill()
        cluster.shutdown()
    monkeypatch.setattr(local, "places", lambda *_: [local.Place((min(os.sched_getaffinity(0)),))] * 2)
    queue.execute(SPECS, Session(tmp_path / "local", quiet=True))
    wanted = RunStore(tmp_path / "local")
    for spec in SPECS:
        assert store.result(spec).accuracy == wanted.result(spec).accuracy
        assert tiny_data.losses(store.result(spec)) == pytest.approx(tiny_data.losses(wanted.result(spec)), rel=1e-5)
    assert not (tmp_path / "reached").exists(), "Ray imports nothing from the current folder"
    assert sorted(path.name for path in store.runs.iterdir() if path.is_dir()) == sorted(spec.folder for spec in SPECS)
    assert store.result(SPECS[0]).execution["executor"] == "ray"
