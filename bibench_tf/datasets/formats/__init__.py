"""Readers of stored data: files, folders and what TensorFlow Datasets prepares."""
