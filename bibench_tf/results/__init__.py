"""Results: records on disk, the runs of a results folder, their status, and folders at URLs."""
