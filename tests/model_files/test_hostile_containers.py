"""Zip archives, HDF5 files and checkpoints that read other files, take much memory, or say two things at once.

A test fails when the loader reads such a file at all, or needs more memory to refuse it than the file has bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest

from bibench_tf import model_files
from bibench_tf.errors import BibenchError

FORMS = pytest.mark.parametrize("form", [".keras", ".h5"])


def refused(path, match):
    tracemalloc.start()
    with pytest.raises(BibenchError, match=match) as error:
        model_files.load(path)
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.fixture
def packed(harmless, tmp_path):
    """packed(change, **options): a .keras file whose entries by name were changed by a function."""

    def make(change, duplicate=(), compression=zipfile.ZIP_STORED):
        with zipfile.ZipFile(harmless / "network.keras") as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        change(entries)
        path = tmp_path / "packed.keras"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in [*entries.items(), *duplicate]:
                archive.writestr(name, content)
        return path

    return make


def test_an_archive_that_unpacks_to_much_more(packed):
    """Here 100 KB to 100 MB; 3 MB to 3.2 GB was read before."""
    path = packed(lambda entries: entries.update({"model.weights.h5": bytes(10**8)}), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    refused(path, r"its entries take 95.4 MiB, more than 100 times the [\d.]+ KiB of the file; save it without compr")


def test_an_archive_that_understates_its_sizes(packed):
    """Only as many bytes are unpacked as the directory of the archive says."""
    path = packed(lambda entries: entries.update({"model.weights.h5": bytes(10**8)}), compression=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    start = content.rindex(b"PK\x01\x02", 0, content.rindex(b"model.weights.h5"))
    struct.pack_into("<I", content, start + 24, 1000)
    path.write_bytes(content)
    refused(path, "cannot be loaded")


def test_a_configuration_of_many_bytes(packed):
    refused(
        packed(lambda entries: entries.update({"config.json": b" " * (17 * 2**20)})), "'config.json' takes 17.0 MiB"
    )


@pytest.mark.parametrize(
    "name",
    [
        "extra.txt",
        "CONFIG.JSON",
        "/tmp/absolute",
        "../../outside",
        "assets/words.txt",
        "model.weights.h5/",
        "config.json\0x",
    ],
)
def test_entries_beside_those_of_keras(packed, tmp_path, name):
    refused(
        packed(lambda entries: entries.update({name: b"text"})), "it holds '.*only the configuration|two files|cannot"
    )
    assert not (tmp_path.parent / "outside").exists()


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "metadata.json"])
def test_two_entries_of_one_name(packed, name):
    """Python reads the last, other programs the first."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = packed(lambda entries: None, duplicate=[(name, b"{}")])
    refused(path, "two files of one name")


def test_links_in_an_archive(packed, tmp_path, harmless):
    """A link is read as what it is in the archive: a short text."""
    (target := tmp_path / "secret.h5").write_bytes((harmless / "network.h5").read_bytes())
    path = packed(lambda entries: entries.pop("model.weights.h5"))
    link = zipfile.ZipInfo("model.weights.h5")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, str(target))
    refused(path, "cannot be loaded")


def test_headers_that_differ(packed):
    """The header of an entry names another file than the directory of the archive."""
    path = packed(lambda entries: None)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"config.json", b"konfig.json", 1))
    refused(path, "cannot be loaded")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_methods_that_keras_does_not_use(packed, method):
    refused(packed(lambda entries: None, compression=method), "a method that Keras does not use")


def test_an_archive_that_python_deflated_is_read(packed):
    path = packed(lambda entries: None, compression=zipfile.ZIP_DEFLATED)
    assert model_files.load(path).get_layer("head").units == 2


def test_files_of_keras_3(packed, harmless, tmp_path):
    metadata = json.dumps({"keras_version": "3.3.3"}).encode()
    refused(packed(lambda entries: entries.update({"metadata.json": metadata})), "saved by Keras 3.3.3.*model.export")
    path = tmp_path / "three.h5"
    shutil.copy(harmless / "network.h5", path)
    with h5py.File(path, "r+") as file:
        file.attrs["keras_version"] = "3.3.3"
    refused(path, "saved by Keras 3.3.3.*model.export")


# HDF5
@pytest.fixture
def spoilt(packed, harmless, tmp_path):
    """spoilt(form, change): a file whose kernel was replaced by a function of its group and name."""

    def make(form, change):
        if form == ".h5":
            path = tmp_path / "spoilt.h5"
            shutil.copy(harmless / "network.h5", path)
            with h5py.File(path, "r+") as file:
                change(file["model_weights/head/head"], "kernel:0")
            return path
        (tmp_path / "weights.h5").write_bytes(zipfile.ZipFile(harmless / "network.keras").read("model.weights.h5"))
        with h5py.File(tmp_path / "weights.h5", "r+") as file:
            group = next(
                file[name] for name in ("layers/dense/vars", "_layer_checkpoint_dependencies/head/vars") if name in file
            )
            change(group, "0")
        return packed(lambda entries: entries.update({"model.weights.h5": (tmp_path / "weights.h5").read_bytes()}))

    return make


def external_storage(group, name):
    del group[name]
    group.create_dataset(name, (3, 2), "f4", external=[("/etc/passwd", 0, 24)])


def virtual(group, name):
    del group[name]
    layout = h5py.VirtualLayout((3, 2), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "data", (3, 2))
    group.create_virtual_dataset(name, layout)


def external_link(group, name):
    del group[name]
    group[name] = h5py.ExternalLink("/tmp/other.h5", "data")


def soft_link(group, name):
    del group[name]
    group[name] = h5py.SoftLink("/elsewhere")


def claims_much(group, name):
    del group[name]
    group.create_dataset(name, (30 * 10**12,), "f8", chunks=(10**6,))


def deflated(group, name):
    del group[name]
    group.create_dataset(name, data=np.zeros(25_000_000, "f4"), compression="gzip")


def texts(group, name):
    del group[name]
    group.create_dataset(name, data=["text"] * 6)


def references(group, name):
    del group[name]
    group.create_dataset(name, data=[group.ref] * 6, dtype=h5py.ref_dtype)


@FORMS
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (external_storage, "its values '.*' lie in other files"),
        (virtual, "its values '.*' lie in other files"),
        (external_link, "its values '.*' are a link"),
        (soft_link, "its values '.*' are a link"),
        (claims_much, r"its values '.*' and those before take 218\.\d TiB, more than the 8.0 GiB"),
        (deflated, r"its values '.*' and those before take 95\.4 MiB, more than 100 times"),
        (texts, "its values '.*' are no numbers"),
        (references, "its values '.*' are no numbers"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_values_in_hdf5(spoilt, form, change, match):
    refused(spoilt(form, change), match)


@FORMS
def test_a_circle_of_groups(spoilt, form):
    def change(group, name):
        group.parent["loop"] = group.parent

    model_files.load(spoilt(form, change))


def test_one_weight_named_very_often(spoilt):
    """Keras reads by lists of names, so a file of 1 MB would take 10 GB."""

    def change(group, name):
        group.create_dataset("big", data=np.ones(250_000, "f4"))
        group.parent.attrs["weight_names"] = [b"head/big"] * 900

    refused(spoilt(".h5", change), "its weights by name take 858.3 MiB")


@pytest.mark.parametrize("kind", [b"\x89HDF\r\n\x1a\n", b"PK\x05\x06" + bytes(18), b"", bytes(100), b"{}"])
@FORMS
def test_files_that_only_begin_like_a_model(tmp_path, form, kind):
    (path := tmp_path / f"short{form}").write_bytes(kind)
    refused(path, "cannot be loaded|neither|is not loaded")


@FORMS
def test_damaged_files(harmless, tmp_path, form):
    """Every eighth of a file cut off, and bytes of it changed: one sentence, or the network."""
    content = (harmless / f"network{form}").read_bytes()
    path = tmp_path / f"damaged{form}"
    random = np.random.default_rng(7)
    for eighth in range(1, 8):
        path.write_bytes(content[: len(content) * eighth // 8])
        refused(path, "damaged")
    for _ in range(40):
        changed = bytearray(content)
        for position in random.integers(0, len(content), 5):
            changed[position] = random.integers(0, 256)
        path.write_bytes(changed)
        try:
            model_files.load(path)
        except BibenchError as error:
            assert "\n" not in str(error)


def test_a_checkpoint_that_claims_more_than_it_has(harmless, tmp_path):
    """TensorFlow takes the memory that the index of a checkpoint claims before it reads the values."""
    shutil.copytree(harmless / "network", tmp_path / "network")
    os.truncate(tmp_path / "network/variables/variables.data-00000-of-00001", 10)
    refused(tmp_path / "network", "its index claims [\\d,]+ bytes of weights, and its data have 10")


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000, "nul\0byte", ""])
def test_names_that_no_file_can_have(name):
    with pytest.raises(BibenchError):
        model_files.load_file(name)
