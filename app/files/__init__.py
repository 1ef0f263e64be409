"""The files of a thread: their metadata is in the database, their bytes are in a store."""

from app.files.catalogue import Catalogue, File
from app.files.content import Refusal
from app.files.files import Files
from app.files.store import make_private, open_store
from app.files.upload import Upload

__all__ = ["Catalogue", "File", "Files", "Refusal", "Upload", "make_private", "open_store"]
