"""Messages for a failed import of onnxruntime: why, and what to do."""

import sys

from embedge.errors import one_line

# Part of an ImportError's message, and the cause and remedy to report for it.
_REMEDIES = (
    (
        "DLL load failed",
        "Windows cannot load it, most often as the Microsoft Visual C++ runtime is missing; "
        "install https://aka.ms/vs/17/release/vc_redist.x64.exe (on Arm vc_redist.arm64.exe), and "
        "start the program again",
    ),
    (
        "cannot allocate memory",
        "there is not enough memory, or address space, to load it; raise the limit (ulimit -v) or "
        "close other programs",
    ),
    (
        "failed to map segment",
        "there is not enough address space to load it, or its folder is mounted noexec; raise the "
        "limit (ulimit -v), or install it elsewhere",
    ),
    (
        "GLIBC",
        "its wheel needs a newer system (glibc); install an older one: python -m pip install "
        "'onnxruntime<1.21'",
    ),
    ("No module named 'onnxruntime'", "install it: python -m pip install onnxruntime"),
)
_OTHERWISE = "reinstall it: python -m pip install --force-reinstall onnxruntime"
_IN_PART = (
    "onnxruntime is installed only in part: two of its wheels were installed together, and one was "
    "removed. " + _OTHERWISE[0].upper() + _OTHERWISE[1:]
)


def import_problem(error: ImportError | None) -> str:
    """The message for an ``error`` of the import; None: the package is an empty folder."""
    if error is None:
        return _IN_PART
    text = one_line(error)
    remedy = next((advice for sign, advice in _REMEDIES if sign in text), _OTHERWISE)
    python = ".".join(map(str, sys.version_info[:2]))
    return f"onnxruntime cannot be imported in Python {python}: {text}; {remedy}"
