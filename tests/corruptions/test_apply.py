"""What holds for every corruption."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from bibench_tf import corruptions, registry
from bibench_tf.corruptions import Draws
from bibench_tf.corruptions.base import CORRUPTIONS
from bibench_tf.errors import BibenchError, InvalidOption, UnknownName

GREY = [name for name in corruptions.names() if name != "saturate"]
# Those whose result depends on random numbers.
RANDOM = {
    *("gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "frost", "fog"),
    *("elastic_transform", "speckle_noise", "spatter"),
}
EVERYTHING = [(name, table) for name in corruptions.names() for table in corruptions.TABLES]

# Where a severity does less damage than the one before, and why: (table, corruption): severities.
NOT_WORSE = {
    # Severities 1 to 3 move pixels alike, and blur more and more of that away; so do 4 and 5.
    ("cifar10", "glass_blur"): {2, 3, 5},
    # 2 blurs further but moves pixels once, not twice; 4 moves them twice, not three times.
    ("imagenet", "glass_blur"): {2, 4},
    # The affine map, which does most of the damage, shrinks from 8 % of the side to 3 %.
    ("cifar10", "elastic_transform"): {2, 3, 4, 5},
    # From 20 % of the side to 2 %.
    ("imagenet", "elastic_transform"): {3},
    # Mud, not water: it covers less than water lights up.
    ("cifar10", "spatter"): {4},
    # Smaller drops.
    ("imagenet", "spatter"): {3},
    # From here on colours are stronger, not weaker.
    ("cifar10", "saturate"): {3},
    ("imagenet", "saturate"): {3},
    # The same thickness, in finer structures.
    ("imagenet", "fog"): {4},
    # The same frost over a darker image, which is then nearer to what it was.
    ("imagenet", "frost"): {4},
}
# Likewise, but how bright the image is decides.
EITHER = {("cifar10", "frost"): {4, 5}}


def damages(name, images, table):
    corrupted = (corruptions.apply(name, images, severity, table=table) for severity in corruptions.SEVERITIES)
    return np.array([np.mean((result.astype(float) - images) ** 2) for result in corrupted])


def test_the_names_are_those_of_cifar_10_c():
    standard, extra = corruptions.names("standard"), corruptions.names("extra")
    assert len(standard) == 15 and len(extra) == 4
    assert corruptions.names() == [*standard, *extra]
    assert {"glass_blur", "elastic_transform", "jpeg_compression", "frost"} <= set(standard)
    assert set(extra) == {"speckle_noise", "gaussian_blur", "spatter", "saturate"}


def test_the_order_is_that_of_the_authors():
    assert [corruptions.get(name).number for name in corruptions.names()] == list(range(1, 20))
    assert corruptions.names()[:4] == ["gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur"]


def test_both_tables_have_five_severities_of_everything():
    for name in corruptions.names():
        severities = corruptions.get(name).severities
        assert tuple(severities) == corruptions.TABLES
        assert all(len(parameters) == 5 for parameters in severities.values())


def test_names_need_neither_tensorflow_nor_scipy():
    script = (
        "import sys; from bibench_tf import corruptions; assert 'scipy' not in sys.modules;"
        "corruptions.names(); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


PLUGIN = """
import numpy as np
from bibench_tf import corruptions

@corruptions.register(cifar10=(1, 2, 3, 4, 5))
def dimming(images, steps, draws):
    return images - np.float32(10 * steps)
"""


def test_one_file_adds_a_corruption(tmp_path, grey):
    (tmp_path / "plugin.py").write_text(PLUGIN)
    before = corruptions.names()
    with mock.patch.dict(CORRUPTIONS._entries), mock.patch.dict(os.environ):
        registry.load_plugin(tmp_path / "plugin.py")
        assert corruptions.names() == [*before, "dimming"] and corruptions.expand(["extra"])[-1] == "dimming"
        expected = np.clip(grey.astype(int) - 20, 0, 255)
        np.testing.assert_array_equal(corruptions.apply("dimming", grey, 2), expected)
        with pytest.raises(UnknownName, match="Unknown table of severities 'imagenet'"):
            corruptions.apply("dimming", grey, 2, table="imagenet")
    with pytest.raises(InvalidOption, match="five severities"):
        corruptions.register(cifar10=(1, 2, 3))(lambda images, steps, draws: images)


@pytest.mark.parametrize(("name", "table"), EVERYTHING)
def test_type_shape_and_input_are_kept(name, table, grey, colour, large):
    wide = colour[:2, 3:27, :]
    for images in (grey[:3], colour[:3], grey[:2, 2:30, 2:30], wide, wide.transpose(0, 2, 1, 3), large):
        if images.shape[-1] == 1 and name not in GREY:
            continue
        before = images.copy()
        result = corruptions.apply(name, images, 5, table=table)
        assert result.dtype == np.uint8 and result.shape == images.shape
        assert not np.array_equal(result, images)
        np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("name", corruptions.names())
def test_severity_0_is_the_image_itself(name, colour):
    result = corruptions.apply(name, colour, 0)
    np.testing.assert_array_equal(result, colour)
    assert not np.shares_memory(result, colour)


@pytest.mark.parametrize(("name", "table"), EVERYTHING)
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_an_image_does_not_depend_on_its_batch_or_the_threads(name, table, severity, colour, monkeypatch):
    options = {"seed": 5, "table": table}
    whole = corruptions.apply(name, colour, severity, first_index=100, **options)
    parts = [corruptions.apply(name, colour[:1], severity, first_index=100, **options)]
    parts += [corruptions.apply(name, colour[1:14], severity, first_index=101, **options)]
    parts += [corruptions.apply(name, colour[14:], severity, first_index=114, workers=3, **options)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    # Blocks that are worked on at a time: here of two images.
    monkeypatch.setattr(corruptions, "_BLOCK_VALUES", 2 * colour[0].size)
    np.testing.assert_array_equal(whole, corruptions.apply(name, colour, severity, first_index=100, **options))


@pytest.mark.parametrize("name", corruptions.names())
def test_large_images_do_not_depend_on_their_batch(name, large):
    whole = corruptions.apply(name, large, 4, table="imagenet", first_index=7)
    single = [corruptions.apply(name, large[i : i + 1], 4, table="imagenet", first_index=7 + i) for i in (0, 1)]
    np.testing.assert_array_equal(whole, np.concatenate(single))


@pytest.mark.parametrize("name", corruptions.names())
def test_randomness_follows_seed_image_and_severity(name, colour):
    image = colour[3:4]
    first = corruptions.apply(name, image, 5, seed=1, first_index=2)
    others = [
        corruptions.apply(name, image, 5, seed=2, first_index=2),
        corruptions.apply(name, image, 5, seed=1, first_index=3),
    ]
    for other in others:
        assert np.array_equal(first, other) == (name not in RANDOM)


def test_draws_are_keyed_by_image_call_and_key():
    def numbers(key=(0, "fog"), first=0, count=3):
        draws = Draws(key, first, count)
        return draws.uniform(4), draws.uniform(4)

    one, two = numbers()
    assert not np.intersect1d(one, two).size and len(np.unique(one)) == one.size
    np.testing.assert_array_equal(numbers(first=1, count=1)[1][0], two[1])
    assert not np.intersect1d(one, numbers(key=(1, "fog"))[0]).size
    # The generator keeps nothing from the image before, whatever kind of number that drew.
    draws, again = Draws((0,), 0, 3), Draws((0,), 1, 1)
    for method, options in (("integers", (0, 10, 3)), ("normal", (5,)), ("uniform", (1,))):
        np.testing.assert_array_equal(getattr(draws, method)(*options)[1], getattr(again, method)(*options)[0])


@pytest.mark.parametrize(("name", "table"), EVERYTHING)
def test_damage_grows_with_severity(name, table, grey, colour):
    either = EITHER.get((table, name), set())
    expected = {2, 3, 4, 5} - NOT_WORSE.get((table, name), set()) - either
    for images in (grey, colour) if name in GREY else (colour,):
        images = np.tile(images, (4, 1, 1, 1))
        found = damages(name, images, table)
        assert found[0] > 0
        worse = {severity for severity in (2, 3, 4, 5) if found[severity - 1] > found[severity - 2]}
        assert worse - either == expected, found


def test_images_stay_those_of_this_version(colour):
    """What changes the images must raise VERSION: results measured with other images must not be mixed."""
    known = json.loads((Path(__file__).parent / "golden" / "version.json").read_text())
    assert known["version"] == corruptions.VERSION
    for name, table in EVERYTHING:
        for severity in corruptions.SEVERITIES:
            result = corruptions.apply(name, colour[:8], severity, table=table, seed=3).astype(float)
            halves = [result[:4].mean(), result[4:].mean(), result[:, ::2, 1::2].std()]
            # Rounding may differ between processors: a level in one pixel of a thousand.
            np.testing.assert_allclose(
                halves, known["images"][f"{name} {table} {severity}"], atol=0.02, err_msg=f"{name} {table} {severity}"
            )


def test_bad_requests_are_refused(grey):
    with pytest.raises(BibenchError, match="Did you mean 'contrast'"):
        corruptions.apply("contrst", grey, 1)
    with pytest.raises(BibenchError, match="Did you mean 'cifar10'"):
        corruptions.apply("contrast", grey, 1, table="cifar")
    for severity in (-1, 6, 2.5):
        with pytest.raises(BibenchError, match="from 1 to 5"):
            corruptions.apply("contrast", grey, severity)
    with pytest.raises(BibenchError, match="colour"):
        corruptions.apply("saturate", grey, 1)
    with pytest.raises(BibenchError, match="1 or 3 channels"):
        corruptions.apply("contrast", np.zeros((1, 4, 4, 2), np.uint8), 1)
    for images in (grey[0], grey / 255.0):
        with pytest.raises(BibenchError, match=r"uint8 \[N, H, W, C\]"):
            corruptions.apply("contrast", images, 1)


@pytest.mark.parametrize("name", corruptions.names())
def test_black_white_flat_tiny_and_no_images_are_no_trouble(name):
    for level in (0, 255, 77):
        for shape in ((2, 32, 32, 3), (1, 9, 11, 3)):
            for table in corruptions.TABLES:
                corruptions.apply(name, np.full(shape, level, np.uint8), 3, table=table)
    assert corruptions.apply(name, np.zeros((0, 32, 32, 3), np.uint8), 3).shape == (0, 32, 32, 3)
