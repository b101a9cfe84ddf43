"""A kind of target from a file outside of the package, through the command line and the program's interface."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PLUGIN = """
from bibench_tf.deploy.targets import Device, Measurement, Round, register


class Oven:
    def __init__(self, address):
        self.name = f"oven:{address}"

    def describe(self):
        return Device(self.name, "Oven", None, "arm64-v8a", 2, "Oven OS")

    def measure(self, flatbuffers, settings):
        rounds = (Round(2.5, 0.0, 2.5, 2.5, settings.minimum_runs),)
        return {name: Measurement(self.describe(), settings, rounds) for name in flatbuffers}

    def close(self):
        pass


@register("oven", "oven:NAME", attached=lambda: ["oven:found"])
def open_oven(address, access):
    '''An oven.'''
    return Oven(address)
"""
PROGRAM = """
from pathlib import Path
from bibench_tf import registry
from bibench_tf.deploy import latencies
registry.load_plugin("oven.py")
print(latencies.measure({"a": b""}, ["oven:x"])["oven:x"]["a"].latency_ms)
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "oven.py").write_text(PLUGIN)
    (tmp_path / "a.tflite").write_bytes(b"\x1c\0\0\0TFL3")

    def run(*arguments):
        environment = {name: value for name, value in os.environ.items() if name != "BIBENCH_PLUGINS"}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_command_line(run, tmp_path):
    command = ["-m", "bibench_tf", "deploy", "benchmark", "a.tflite", "--target", "oven:x", "--plugin", "oven.py"]
    (row,) = json.loads(run(*command, "--json", "-", "--csv", "times.csv", "--results", "results"))
    assert (row["target"], row["latency_ms"], row["provenance"]) == ("oven:x", 2.5, "measured")
    header, line = (tmp_path / "times.csv").read_text().splitlines()
    assert header.startswith("target,file,provenance,latency_ms") and line.startswith("oven:x,a.tflite,measured,2.5")
    assert len(list((tmp_path / "results" / "devices" / "oven-x").glob("a-*.json"))) == 1


def test_devices_are_found(run):
    devices = json.loads(run("-m", "bibench_tf", "deploy", "devices", "oven:x", "--plugin", "oven.py", "--json", "-"))
    assert [device["model"] for device in devices] == ["Oven"]


def test_program(run):
    assert run("-c", PROGRAM) == "2.5\n"
