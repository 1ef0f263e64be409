"""The files of a thread: what is known of them is in the database, their bytes are in a store."""

from app.files.catalogue import Catalogue, File
from app.files.content import Refusal
from app.files.files import Files, open_files
from app.files.store import open_store
from app.files.upload import Upload

__all__ = ["Catalogue", "File", "Files", "Refusal", "Upload", "open_files", "open_store"]
