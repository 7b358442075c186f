"""Segmentation: images cut into tiles, a decoder on the adapted tokens, masks in and masks out.

Strategies, loop, memory and adapter files are those of classification. Masks hold class numbers: 0 the background, 1 to
K the classes, 255 (`continual.domain.samples.IGNORED`) what nobody learns from or is scored on.
"""
