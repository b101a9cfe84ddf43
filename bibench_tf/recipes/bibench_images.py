"""BiBench's recipes for image classification. Its release names no accuracies; docs/recipes.md has those of papers."""

from __future__ import annotations

from bibench_tf.recipes.base import Recipe, register

# acc_cifar10, full precision.
_CIFAR10_FLOAT = register(
    Recipe(
        "bibench_cifar10_float",
        epochs=200,
        batch_size=128,
        optimizer="sgd",
        learning_rate=0.1,
        schedule="cosine",
        weight_decay=1e-4,
    )
)

# acc_cifar10, binary, from the full-precision weights. VGG-Small is in the paper and not in the release.
register(
    Recipe(
        "bibench_cifar10",
        epochs=400,
        batch_size=128,
        optimizer="adam",
        learning_rate=1e-3,
        schedule="cosine",
        start=_CIFAR10_FLOAT,
    ),
    bibench_for={"cifar10": ("resnet18", "resnet20", "resnet34", "vgg_small")},
)

# eff_train: a ResNet-18 on CIFAR-10 from scratch, in one of the settings of its grid.
register(
    Recipe("bibench_training", epochs=200, batch_size=128, optimizer="adam", learning_rate=1e-3, schedule="cosine")
)

# acc_imagenet, full precision. The released schedule file is missing; the steps at 30, 60 and 90 epochs are the usual
# ones.
_IMAGENET_FLOAT = register(
    Recipe(
        "bibench_imagenet_float",
        epochs=100,
        batch_size=256,
        optimizer="sgd",
        learning_rate=0.1,
        schedule="step",
        weight_decay=1e-4,
        milestones=(0.3, 0.6, 0.9),
    )
)

# acc_imagenet, binary, from the full-precision weights.
register(
    Recipe(
        "bibench_imagenet",
        epochs=100,
        batch_size=256,
        optimizer="adam",
        learning_rate=1e-3,
        schedule="cosine",
        start=_IMAGENET_FLOAT,
    ),
    bibench_for={"imagenet2012": ("resnet18",)},
)
