"""Images, opened and checked before anybody draws them."""

from io import BytesIO
from pkgutil import resolve_name

# Decoded, so many take 64 MB.
MAX_PIXELS = 16_000_000
# Nobody looks at more at once.
MAX_SIDE = 2_000


# The formats that providers take, by the names of Pillow's modules and classes.
MODEL_IMAGES = {
    "image/png": "PngImagePlugin:PngImageFile",
    "image/jpeg": "JpegImagePlugin:JpegImageFile",
    "image/gif": "GifImagePlugin:GifImageFile",
    "image/webp": "WebPImagePlugin:WebPImageFile",
}


class ImageError(ValueError):
    """An image that cannot be shown; the message follows the image's name, and says why and what to do."""


def checked_png(content: bytes, max_bytes: int) -> bytes:
    """Return the PNG in a form that can be shown: complete, one frame, at most `MAX_SIDE` pixels wide and high.

    Raises `ImageError` for one that is damaged, has more than `MAX_PIXELS` pixels, or more than `max_bytes` bytes.
    """
    drawn = content if len(content) > max_bytes else _drawn(content)
    if len(drawn) > max_bytes:
        raise ImageError(f"is larger than {max_bytes:,} bytes: save it smaller")
    return drawn


def check_image(content: bytes, media_type: str) -> None:
    """Raise `ImageError` for an image of `MODEL_IMAGES` that is damaged or has more than `MAX_PIXELS` pixels."""
    # Not with Image.open, which only warns of too many pixels.
    read = resolve_name(f"PIL.{MODEL_IMAGES[media_type]}")
    try:
        with read(BytesIO(content)) as image:
            is_small = image.width * image.height <= MAX_PIXELS
            if is_small:
                image.load()
    except Exception as error:  # Pillow raises various errors for bytes that are not an image
        raise ImageError("it is not a complete image") from error
    if not is_small:
        raise ImageError(f"it has more than {MAX_PIXELS:,} pixels")


def _drawn(content: bytes) -> bytes:
    from PIL import PngImagePlugin  # takes time to load, and few agents create images

    try:
        # Not with Image.open, which only warns of too many pixels.
        with PngImagePlugin.PngImageFile(BytesIO(content)) as image:
            if image.width * image.height <= MAX_PIXELS:
                image.load()
                if max(image.size) <= MAX_SIDE and not image.is_animated:
                    return content
                image.thumbnail((MAX_SIDE, MAX_SIDE))
                image.save(scaled := BytesIO(), "PNG")
                return scaled.getvalue()
    except Exception as error:  # Pillow raises various errors for bytes that are not an image
        raise ImageError("is not a complete PNG: save it again") from error
    raise ImageError(f"has more than {MAX_PIXELS:,} pixels: save it smaller")
