"""Volumes: MONAI's 3D networks adapted like the vision transformers, classes or masks out.

Strategies, loop, memory and adapter files are those of images. Volumes come in canonical axes (right, anterior,
superior) with the spacing of their voxels in millimetres; a `VolumeGrid` says at which spacing they are learnt.
"""
