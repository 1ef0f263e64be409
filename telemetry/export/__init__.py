"""From a finished span to the bytes of an export request."""
