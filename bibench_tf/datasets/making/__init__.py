"""Scripts that made the embedded data, and builders of TensorFlow Datasets."""
