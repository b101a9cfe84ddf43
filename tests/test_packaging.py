"""What is installed: the console script, the wheel, the lanes and their locks, the hunt for a Python."""

from __future__ import annotations

import configparser
import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bibench_tf

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "requirements"
MAPPED = {"zoo": "bibench_tf.zoo", "tracks": "bibench_tf.tracks", "deploy": "bibench_tf.deploy"}


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def lines(text: str) -> list[str]:
    """The values of a multi-line option of setup.cfg."""
    return [line for line in text.strip().splitlines() if line and not line.startswith("#")]


# Console script


def test_the_console_script_is_bibench():
    scripts = importlib.metadata.entry_points(group="console_scripts")
    assert [script.value for script in scripts if script.name == "bibench"] == ["bibench_tf.cli:main"]


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from bibench_tf.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    heavy = "tensorflow keras tf_keras larq larq_compute_engine tensorflow_datasets pandas matplotlib scipy"
    assert not set(heavy.split()) & set(done.stdout.splitlines()[-1].split())


def test_what_the_command_line_starts_with_needs_no_tensorflow():
    modules = [
        "benchmark.engine",
        "cli.run",
        "cli.tracks",
        "datasets",
        "recipes",
        "report.scores",
        "stats.metrics",
        "tasks",
    ]
    code = f"import sys, {', '.join(f'bibench_tf.{name}' for name in modules)}; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Metadata


def test_the_installed_version_is_the_one_in_the_code():
    assert importlib.metadata.version("bibench-tf") == bibench_tf.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", bibench_tf.__version__)


def test_every_package_folder_is_listed(setup_cfg):
    found = set()
    for top in ("bibench_tf", *MAPPED):
        for init in (ROOT / top).rglob("__init__.py"):
            first, *rest = init.parent.relative_to(ROOT).parts
            found.add(".".join([MAPPED.get(first, first), *rest]))
    assert set(lines(setup_cfg["options"]["packages"])) == found


def test_every_module_lies_in_a_package():
    for top in ("bibench_tf", *MAPPED):
        for module in (ROOT / top).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), f"{module.parent} has no __init__.py"


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this tree, built in a copy, because setuptools leaves files where it builds."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("bibench_tf", *MAPPED, "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    options = ["-v", "--no-deps", "--no-build-isolation", "--wheel-dir", out]
    command = [sys.executable, "-m", "pip", "wheel", *options, source]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "deprecat" not in (done.stdout + done.stderr).lower()
    (path,) = out.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_data_file_and_one_top_level_package(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"bibench_tf"}
    for top in ("bibench_tf", *MAPPED):
        prefix = MAPPED.get(top, top).replace(".", "/")
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{prefix}/{path.relative_to(ROOT / top).as_posix()}" in names
    assert any(name.startswith("bibench_tf/datasets/data/fashion_mini") for name in names)


@pytest.mark.slow
def test_the_wheel_stays_small(wheel):
    sizes = {info.filename: info.compress_size for info in zipfile.ZipFile(wheel).infolist()}
    data = sum(size for name, size in sizes.items() if name.startswith("bibench_tf/datasets/data/"))
    assert data < 9e6
    assert sum(sizes.values()) - data < 1e6


@pytest.mark.slow
def test_the_wheel_says_its_licence(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    text = archive.read(metadata).decode()
    assert "\nLicense-Expression: Apache-2.0\n" in text
    assert f"\nVersion: {bibench_tf.__version__}\n" in text
    (licence,) = [name for name in archive.namelist() if name.endswith("/LICENSE")]
    assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()


# Lanes and locks


def entries(lock: Path) -> list[str]:
    """The entries of a lock, one line each: `name==version --hash=... --hash=...`."""
    return re.sub(r" *\\\n *", " ", lock.read_text()).splitlines()


def test_locks_name_exact_versions_with_hashes_and_nothing_else():
    locks = sorted(LOCKS.glob("*.lock")) + sorted(LOCKS.glob("*.txt"))
    assert len(locks) == 6
    for lock in locks:
        for entry in entries(lock):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+( --hash=sha256:[0-9a-f]{64})+", entry), (lock, entry)


@pytest.mark.parametrize(
    ("lock", "lane", "tensorflow"),
    [
        ("py310", "3.10", "2.15"),
        ("py311", "3.11", "2.15"),
        ("py312", "3.12", "2.18"),
        ("py311-tf218", "3.12", "2.18"),
    ],
)
def test_each_lock_satisfies_its_lane_of_setup_cfg(setup_cfg, lock, lane, tensorflow):
    pinned = {}
    for entry in entries(LOCKS / f"{lock}.lock"):
        name, version = entry.partition(" ")[0].split("==")
        pinned[canonicalize_name(name)] = version
    wanted = lines(setup_cfg["options"]["install_requires"])
    wanted += lines(setup_cfg["options.extras_require"]["test"])
    for requirement in map(Requirement, wanted):
        if requirement.marker is None or requirement.marker.evaluate({"python_version": lane}):
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
    assert pinned["tensorflow"].startswith(f"{tensorflow}.")
    assert ("tensorflow-addons" in pinned) == (tensorflow == "2.15")
    assert ("tf-keras" in pinned) == (tensorflow == "2.18")


# The hunt for a Python, with stand-ins for interpreters on a PATH of their own


@pytest.fixture
def find_python(tmp_path):
    """A function that runs requirements/find_python.sh and gives its exit code and output."""
    (tmp_path / "sed").symlink_to(shutil.which("sed"))

    def add(name: str, version: str, venv: bool = True, machine: str = "x86_64"):
        script = tmp_path / name
        script.write_text(
            "#!/bin/sh\n"
            'case "$2" in\n'
            f"*ensurepip*) exit {int(not venv)} ;;\n"
            f"*machine*) echo linux {machine} ;;\n"
            f"*version_info*) echo {version} ;;\n"
            "esac\n"
        )
        script.chmod(0o755)

    def run(*candidates: str, versions: str = "3.10 3.11 3.12") -> tuple[int, str]:
        done = subprocess.run(
            ["/bin/sh", LOCKS / "find_python.sh", versions, *candidates],
            env={"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""
        assert done.stdout.count("\n") == 1
        return done.returncode, done.stdout.strip()

    run.add = add
    run.folder = tmp_path
    return run


def test_the_first_fitting_python_is_taken(find_python):
    shim = find_python.folder / "python3.11"  # as pyenv's, for a version that is not selected
    shim.write_text("#!/bin/sh\necho 'python3.11: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    find_python.add("python3.10", "3.9")
    find_python.add("python3.12", "3.12", venv=False)
    find_python.add("python3", "3.12")
    assert find_python("absent", "python3.11", "python3.10", "python3.12", "python3") == (0, "python3")


def test_another_python_gives_one_line_with_the_remedy(find_python):
    find_python.add("python3", "3.13")
    code, line = find_python("python3.11", "python3")
    assert code == 1
    assert line.startswith("needs Python 3.10, 3.11 or 3.12 (python3 is 3.13): ")
    assert "apt install python3.11 python3.11-venv" in line
    assert "pyenv install 3.11" in line


def test_no_python_gives_one_line(find_python):
    code, line = find_python("python3.11", versions="3.11")
    assert code == 1
    assert line.startswith("needs Python 3.11 (none on the PATH): ")


def test_a_python_without_venv_names_the_package(find_python):
    find_python.add("python3", "3.10", venv=False)
    code, line = find_python("python3.11", "python3")
    assert code == 1
    assert "apt install python3.10-venv" in line


def test_linux_on_arm_is_told_at_once(find_python):
    find_python.add("python3", "3.11", machine="aarch64")
    code, line = find_python("python3")
    assert code == 1
    assert line.startswith("needs an x86-64 machine")


@pytest.mark.parametrize("goal", ["bench", "test"])
def test_make_with_another_python_says_so_in_one_line(find_python, goal):
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    find_python.add("python3", "3.8")
    (find_python.folder / "sh").symlink_to("/bin/sh")
    command = [shutil.which("make"), "--no-print-directory", goal, "VENV=absent-venv", "PYTHON=python3"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": str(find_python.folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    (line,) = (done.stdout + done.stderr).splitlines()
    assert "bibench needs Python 3.10, 3.11 or 3.12 (python3 is 3.8)" in line
