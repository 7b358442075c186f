"""Files to clean images: find them, read them, hold them at the quality gate, strip identifiers, standardise them.

The one door of pydicom, pillow, monai and nibabel. Single frames (DICOM, PNG, JPEG) are read today; volumes come later
through monai, which is not imported here because it costs seconds. Knows nothing of models, databases or schedules.
"""

from continual.imaging.cleaning import clean_images
from continual.imaging.decoding import DecodedImage, decode_image
from continual.imaging.folders import list_dicom_folder
from continual.imaging.manifest import read_manifest
from continual.imaging.masks import decode_mask, encode_mask
from continual.imaging.measurements import pixel_statistics
from continual.imaging.quality import check_quality
from continual.imaging.simulation import write_simulated_hospitals
from continual.imaging.sources import ImageSource, IntakeList

__all__ = [
    "DecodedImage",
    "ImageSource",
    "IntakeList",
    "check_quality",
    "clean_images",
    "decode_image",
    "decode_mask",
    "encode_mask",
    "list_dicom_folder",
    "pixel_statistics",
    "read_manifest",
    "write_simulated_hospitals",
]
