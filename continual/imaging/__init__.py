"""Files to clean images: find them, read them, hold them at the quality gate, strip identifiers, standardise them.

The one door of pydicom, pillow and nibabel. Single frames are DICOM, PNG or JPEG, volumes NIfTI. Knows nothing
of models, databases or schedules.
"""

from continual.imaging.cleaning import clean_images
from continual.imaging.decoded import DecodedImage
from continual.imaging.decoding import decode_image
from continual.imaging.folders import list_dicom_folder
from continual.imaging.label_manifest import FaultyLabelRow, LabelList, LabelRow, content_digest, read_label_manifest
from continual.imaging.manifest import read_manifest
from continual.imaging.masks import decode_mask, encode_mask
from continual.imaging.measurements import pixel_statistics
from continual.imaging.quality import check_quality, check_volume
from continual.imaging.simulation import write_simulated_hospitals
from continual.imaging.sources import ImageSource, IntakeList
from continual.imaging.thumbnails import thumbnails
from continual.imaging.volume_masks import decode_volume_mask, encode_volume_mask, mask_on_grid
from continual.imaging.volumes import DecodedVolume, decode_volume, encode_volume, is_volume
from continual.imaging.voxel_grids import VoxelGrid

__all__ = [
    "DecodedImage",
    "DecodedVolume",
    "FaultyLabelRow",
    "ImageSource",
    "IntakeList",
    "LabelList",
    "LabelRow",
    "VoxelGrid",
    "check_quality",
    "check_volume",
    "clean_images",
    "content_digest",
    "decode_image",
    "decode_mask",
    "decode_volume",
    "decode_volume_mask",
    "encode_mask",
    "encode_volume",
    "encode_volume_mask",
    "is_volume",
    "list_dicom_folder",
    "mask_on_grid",
    "pixel_statistics",
    "read_label_manifest",
    "read_manifest",
    "thumbnails",
    "write_simulated_hospitals",
]
