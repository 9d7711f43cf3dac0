"""PyInstaller's hook for programs that run the command: it imports its modules by name."""

from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("embedge.cli")
