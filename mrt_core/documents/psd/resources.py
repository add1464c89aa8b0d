"""The image resources of a PSD: profile, resolution, thumbnail, names of the alpha channel, and the job as XMP.

Source: Adobe file format, "Image Resources Section".
"""

import io
from typing import Any

from PIL import Image
from psd_tools.constants import Resource
from psd_tools.psd.image_resources import (
    AlphaIdentifiers,
    AlphaNamesPascal,
    AlphaNamesUnicode,
    ImageResource,
    ImageResources,
    ResoulutionInfo,
    ThumbnailResource,
    VersionInfo,
)

from ..metadata import to_xmp
from .color_profile import srgb_profile

_FIXED_POINT = 1 << 16
_PER_INCH, _INCHES = 1, 1
_JPEG = 1


def image_resources(job: dict[str, Any], ppi: float, thumbnail: Image.Image, opaque: bool) -> ImageResources:
    """The resources of a document; `ppi` in pixels per inch, `thumbnail` RGB, `opaque`: no alpha channel in the merged image."""
    dots = round(ppi * _FIXED_POINT)
    data: dict[Resource, Any] = {
        Resource.RESOLUTION_INFO: ResoulutionInfo(dots, _PER_INCH, _INCHES, dots, _PER_INCH, _INCHES),
        Resource.ICC_PROFILE: srgb_profile(),
        Resource.VERSION_INFO: VersionInfo(has_composite=True, writer="MRT", reader="MRT"),
        Resource.THUMBNAIL_RESOURCE: _thumbnail(thumbnail),
        Resource.XMP_METADATA: to_xmp(job),
    }
    if not opaque:
        data[Resource.ALPHA_NAMES_PASCAL] = AlphaNamesPascal(["Transparency"])
        data[Resource.ALPHA_NAMES_UNICODE] = AlphaNamesUnicode(["Transparency\0"])
        data[Resource.ALPHA_IDENTIFIERS] = AlphaIdentifiers([0])  # 0: the merged image's transparency, not a mask
    return ImageResources([(key, ImageResource(key=key.value, data=data[key])) for key in sorted(data)])


def _thumbnail(image: Image.Image) -> ThumbnailResource:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=80)
    row = (image.width * 24 + 31) // 32 * 4
    return ThumbnailResource(_JPEG, image.width, image.height, row, row * image.height, 24, 1, encoded.getvalue())
