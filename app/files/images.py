"""Images, opened and checked before anybody draws them."""

from io import BytesIO

# Decoded, so many take 64 MB.
MAX_PIXELS = 16_000_000
# Nobody looks at more at once.
MAX_SIDE = 2_000


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
