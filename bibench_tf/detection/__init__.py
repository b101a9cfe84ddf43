"""The parts of detectors and of their evaluation: boxes, anchors, matching, losses, regions, suppression, metrics."""
