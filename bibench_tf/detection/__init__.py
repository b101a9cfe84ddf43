"""What detectors are made of: boxes, anchors, matching, losses, regions, suppression, average precision."""
