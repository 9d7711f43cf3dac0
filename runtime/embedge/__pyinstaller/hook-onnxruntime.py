"""PyInstaller's hook for onnxruntime, in place of the one that PyInstaller's contributors keep.

onnxruntime imports one module of its tools in a function that prints versions, and that module
imports PyTorch: where the exporter is installed, a bundle would carry gigabytes that nothing runs.
"""

from PyInstaller.utils.hooks import collect_dynamic_libs

binaries = collect_dynamic_libs("onnxruntime")  # the providers, as the hook that this one replaces
excludedimports = ["onnxruntime.transformers.machine_info"]
