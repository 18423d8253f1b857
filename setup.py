"""Builds the native operators; everything else about the package stands in pyproject.toml.

The library has a plain C interface and is loaded with ctypes, so one build serves every version of Python and
PyTorch. Each operator is compiled once per instruction set; which one runs is chosen at run time. A wheel has
all of them, an editable install those that this processor has. Without a compiler the install still succeeds:
the operators then run on PyTorch's own. ``SACCADE_SANITIZE=1`` builds with AddressSanitizer and
UndefinedBehaviorSanitizer (``make sanitize``).
"""

from __future__ import annotations

import os
import platform
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCES = Path("src/saccade/ops/native")
BUILT = SOURCES.parent / "_native.so"  # where an install in place leaves it
FLAGS = [
    "-std=c++17", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti",
    "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wall", "-Wno-psabi",
    "-Wno-unused-function", "-Wno-maybe-uninitialized",
]  # fmt: skip
INSTRUCTION_SETS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    INSTRUCTION_SETS |= {
        "avx2": ["-mavx2", "-mfma", "-mf16c"],
        "avx512": [
            "-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl",
            "-mprefer-vector-width=512",
        ],
    }  # fmt: skip
# What /proc/cpuinfo must list for each, as saccade_processor_level() in core.cpp asks.
NEEDED = {
    "baseline": set(),
    "avx2": {"avx2", "fma"},
    "avx512": {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"},
}
LINK_FLAGS = ["-pthread"]
SANITIZE = bool(os.environ.get("SACCADE_SANITIZE"))
if SANITIZE:
    SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize=null", "-fno-sanitize-recover=undefined"]
    FLAGS += ["-O1", "-g1", "-fno-omit-frame-pointer", *SANITIZERS]
    LINK_FLAGS += SANITIZERS


class BuildNative(build_ext):
    """Compiles a shared library that is no Python module."""

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name))
        if self.editable_mode and is_current(BUILT):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(BUILT, target)
            return
        sets = sets_of_this_processor() if self.editable_mode or SANITIZE else INSTRUCTION_SETS
        jobs = [
            (source, name, flags)
            for source in sorted(SOURCES.glob("*.cpp"))
            for name, flags in ({"core": []} if source.stem == "core" else sets).items()
        ]
        self.failed = threading.Event()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            compiled = list(pool.map(lambda job: self.compile_one(*job), jobs))
        self.compiler.link_shared_object(
            [path for paths in compiled for path in paths],
            str(target),
            extra_postargs=LINK_FLAGS,
            target_lang="c++",
        )

    def copy_extensions_to_source(self) -> None:
        """In one step: a process that starts meanwhile loads the old library or the new, whole."""
        built = Path(self.build_lib, BUILT.relative_to("src"))
        if built.is_file():  # else there was no compiler
            beside = BUILT.with_suffix(f".{os.getpid()}.so")
            shutil.copy2(built, beside)
            os.replace(beside, BUILT)

    def compile_one(self, source: Path, name: str, flags: list[str]) -> list[str]:
        if self.failed.is_set():  # one that cannot compile leaves the others undone
            raise CompileError(f"{source.name} was not begun, since another source could not be compiled")
        try:
            return self.compiler.compile(
                [str(source)],
                output_dir=str(Path(self.build_temp) / name),
                macros=[("SACCADE_ISA", name)],
                extra_postargs=[*FLAGS, *flags],
                depends=[str(header) for header in SOURCES.glob("*.h")],
            )
        except BaseException:
            self.failed.set()
            raise


def sets_of_this_processor() -> dict[str, list[str]]:
    """All sets where there is no /proc/cpuinfo to say which."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return INSTRUCTION_SETS
    found = {flag for line in lines if line.startswith("flags") for flag in line.split(":")[1].split()}
    return {name: flags for name, flags in INSTRUCTION_SETS.items() if NEEDED[name] <= found}


def is_current(library: Path) -> bool:
    """Whether the library is newer than all it is made from: an install in place need not build it again."""
    made_from = [Path(__file__), *SOURCES.iterdir()]
    return library.is_file() and library.stat().st_mtime > max(path.stat().st_mtime for path in made_from)


setup(
    ext_modules=[
        Extension("saccade.ops._native", [str(p) for p in sorted(SOURCES.glob("*.cpp"))], optional=True)
    ],
    cmdclass={"build_ext": BuildNative},
)
