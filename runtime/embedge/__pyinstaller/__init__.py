"""What PyInstaller has to know to bundle embedge; read at build time only, never by the runtime."""

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Folders of hooks, which PyInstaller finds through the entry point `pyinstaller40`."""
    return [str(Path(__file__).parent)]
