"""The columns of a detection data set's labels, which have a row for each object.

Labels are float32 [B, M, 11], padded to the image of the batch with the most objects; M is at least 1. Boxes are
(y0, x0, y1, x1) in pixels of the image that the network sees, continuous, as in COCO.
"""

from __future__ import annotations

BOX = slice(0, 4)
# From 0; PADDING in padding rows.
CLASS = 4
# 1 for objects that are neither trained on nor counted: VOC's difficult ones, COCO's crowds.
IGNORED = 5
# In pixels of the original image: COCO's own area if there is one, else that of the box.
AREA = 6
# Down and across: pixels of the network's image per pixel of the original image; in padding rows, too.
SCALE = slice(7, 9)
# Height and width of the image in the network's pixels, without its padding; in padding rows, too.
IMAGE = slice(9, 11)
COLUMNS = 11
PADDING = -1
