"""BiBench's recipes for image classification. Its release names no accuracies; docs/recipes.md has those of papers."""

from __future__ import annotations

from bibench_tf.recipes.base import Recipe, register

# Here and in the other files a recipe begins with its name, epochs, batch size, optimizer, learning rate and schedule.

# acc_cifar10: full precision, then binary from the full-precision weights. VGG-Small is in the paper and not in the
# release.
_CIFAR10_FLOAT = register(Recipe("bibench_cifar10_float", 200, 128, "sgd", 0.1, "cosine", weight_decay=1e-4))
register(
    Recipe("bibench_cifar10", 400, 128, "adam", 1e-3, "cosine", start=_CIFAR10_FLOAT),
    bibench_for={"cifar10": ("resnet18", "resnet20", "resnet34", "vgg_small")},
)

# eff_train: a ResNet-18 on CIFAR-10 from scratch, in one of the settings of its grid.
register(Recipe("bibench_training", 200, 128, "adam", 1e-3, "cosine"))

# acc_imagenet: full precision, then binary from the full-precision weights. The released schedule file is missing; the
# steps at 30, 60 and 90 epochs are the usual ones.
_IMAGENET_FLOAT = register(
    Recipe("bibench_imagenet_float", 100, 256, "sgd", 0.1, "step", weight_decay=1e-4, milestones=(0.3, 0.6, 0.9))
)
register(
    Recipe("bibench_imagenet", 100, 256, "adam", 1e-3, "cosine", start=_IMAGENET_FLOAT),
    bibench_for={"imagenet2012": ("resnet18",)},
)
