"""Open the files of the settings."""

from anyio.to_thread import run_sync
from sqlalchemy.ext.asyncio import AsyncEngine

from app.files import Catalogue, Files, open_store
from app.settings import ServiceSettings
from telemetry.settings import unusable


async def connect_files(settings: ServiceSettings, engine: AsyncEngine) -> Files:
    """Return the files listed in this database; raise `SettingsError` if their store cannot be used."""
    try:
        store = await run_sync(open_store, settings.files_url, settings.data_dir / "files")
    except OSError as error:
        raise settings.unusable_data_dir(error) from error
    except (ImportError, ValueError) as error:
        raise unusable(f"FILES_URL={settings.files_url}", error, "name a store whose driver is installed") from error
    return Files(Catalogue(engine), store, settings.max_file_bytes, settings.file_types)
