# SPDX-License-Identifier: Apache-2.0
"""Build the BPF objects and the cffi extension they are embedded in.

``python build.py`` builds in place (``aegis/_bpf.abi3.so``); hatchling calls
the hook for wheels and editable installs. Needs clang, bpftool, a C compiler,
libbpf's and Python's headers, and cffi. Generated files stay under ``build/``.
"""

import hashlib
import os
import platform
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
KERNEL = ROOT / "kernel"
OUT = ROOT / "build"
EXTENSION = "_bpf.abi3.so"
# bpftool lives in /usr/sbin on Debian, which is often not on PATH.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
PACKAGES = {
    "clang": "clang",
    "bpftool": "bpftool",
    "cc": "gcc",
    "bpf/libbpf.h": "libbpf-dev",
    "Python.h": "python3-dev",
}
# The spelling of bpf_tracing.h's __TARGET_ARCH_ macros.
BPF_ARCH = {"x86_64": "x86", "aarch64": "arm64", "riscv64": "riscv", "s390x": "s390"}
CDEF_TYPES = [f"-D__u{bits}=uint{bits}_t" for bits in (8, 16, 32)]
# uint64_t may be unsigned long, another type than __u64: gcc 14 refuses the mix.
CDEF_TYPES.append("-D__u64=unsigned long long")


class BuildError(Exception):
    """One line that names what is missing, or the failed tool and its output."""


def need(name: str) -> str:
    found = shutil.which(name, path=SEARCH_PATH)
    if not found:
        raise BuildError(f"{name} not found: install the package {PACKAGES[name]}")
    return found


def run(tool: str, *arguments: str | Path) -> str:
    """Return the tool's standard output.

    :raises BuildError: with its messages when it fails.
    """
    command = [need(tool), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(f"{tool} failed:\n{' '.join(command)}\n{result.stderr}")
    return result.stdout


def need_header(name: str, *folders: str | Path) -> None:
    if not any((Path(folder) / name).exists() for folder in folders):
        raise BuildError(f"{name} not found: install the package {PACKAGES[name]}")


def multiarch_include() -> Path:
    """Where asm/types.h lives: clang's bpf target does not look there by itself."""
    return Path("/usr/include") / run("cc", "-print-multiarch").strip()


def build_object(source: Path) -> Path:
    """Compile one ``NAME.bpf.c``; return the object."""
    machine = platform.machine()
    if machine not in BPF_ARCH:
        raise BuildError(f"no BPF support for {machine}")
    name = source.name.removesuffix(".bpf.c")
    raw, target = OUT / f"{name}.raw.o", OUT / f"{name}.bpf.o"
    # v3 has compare-and-jump on 32 bits and atomics; kernel >= 5.12.
    flags = ["-g", "-O2", "-Wall", "-Werror", "-mcpu=v3", "-target", "bpf"]
    flags += [f"-D__TARGET_ARCH_{BPF_ARCH[machine]}", f"-ffile-prefix-map={ROOT}=."]
    include: list[str | Path] = ["-I", KERNEL, "-idirafter", multiarch_include()]
    run("clang", *flags, *include, "-c", source, "-o", raw)
    # gen object drops the debug sections that nobody loads.
    run("bpftool", "gen", "object", target, raw)
    return target


def embed_objects() -> None:
    """Write ``build/objects.h``: every BPF object as bytes, in a table by name."""
    arrays, rows = "", ""
    for source in sorted(KERNEL.glob("*.bpf.c")):
        name = source.name.removesuffix(".bpf.c")
        elf = ",".join(map(str, build_object(source).read_bytes()))
        # libelf reads structs of 8 bytes in place.
        aligned = "__attribute__((aligned(8)))"
        arrays += f"static const unsigned char {name}_elf[] {aligned} = {{{elf}}};\n"
        rows += f'\t{{ "{name}", {name}_elf, sizeof({name}_elf) }},\n'
    row = "struct embedded { const char *name; const void *elf; size_t size; }"
    table = f"static const {row} embedded[] = {{\n{rows}}};\n"
    (OUT / "objects.h").write_text(arrays + table)


def declarations() -> str:
    """The C headers themselves, as cffi reads them: no second copy to drift."""
    flags = ["-E", "-P", "-DAEGIS_CDEF", *CDEF_TYPES]
    return "".join(run("clang", *flags, KERNEL / name) for name in ("aegis.h", "shim.h"))


def abi_name() -> str:
    """Name the layout of all maps; agents of one name may share pinned maps."""
    sources = (KERNEL / f"{name}.h" for name in ("aegis", "optional", "records", "maps.bpf"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


def build_name() -> str:
    """Name the main object as it was compiled; agents of one name may share loaded programs."""
    return hashlib.sha256((OUT / "aegis.bpf.o").read_bytes()).hexdigest()[:16]


def build_extension() -> Path:
    """Compile the cffi binding and the shim; return the shared object."""
    from cffi import FFI  # noqa: PLC0415  # not needed for an sdist

    ffi = FFI()
    ffi.cdef(declarations())
    ffi.set_source("aegis._bpf", '#include "shim.h"')
    source, target = OUT / "_bpf.c", OUT / EXTENSION
    ffi.emit_c_code(str(source))
    python = sysconfig.get_path("include")
    need_header("Python.h", python)
    flags = ["-O2", "-g", "-Wall", "-fPIC", "-shared", f"-ffile-prefix-map={ROOT}=."]
    flags += [f'-DAEGIS_ABI="{abi_name()}"', f'-DAEGIS_BUILD="{build_name()}"']
    flags += [f"-I{KERNEL}", f"-I{OUT}", f"-I{python}"]
    hardening = ["-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-Wl,-z,relro,-z,now"]
    shims = sorted(KERNEL.glob("shim*.c"))
    run("cc", *flags, *hardening, source, *shims, "-lbpf", "-o", target)
    return target


def build() -> Path:
    """Build everything; return the extension.

    :raises BuildError: naming the missing package, or with the tool's output.
    """
    OUT.mkdir(exist_ok=True)
    for tool in ("cc", "clang", "bpftool"):
        need(tool)
    need_header("bpf/libbpf.h", "/usr/include", "/usr/local/include", multiarch_include())
    embed_objects()
    return build_extension()


def install_in_place() -> Path:
    target = ROOT / "aegis" / EXTENSION
    # A running agent keeps the old file mapped: replace, never overwrite.
    temporary = target.with_suffix(".new")
    shutil.copyfile(build(), temporary)
    return temporary.replace(target)


def wheel_tag() -> str:
    return "cp311-abi3-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # ``python build.py`` needs no hatchling
    pass
else:

    class AegisBuildHook(BuildHookInterface[Any]):
        """hatchling's way in; named by ``[tool.hatch.build...custom]``."""

        PLUGIN_NAME = "custom"

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            try:
                if version == "editable":
                    install_in_place()
                else:
                    target = build()
                    build_data["force_include"][str(target)] = f"aegis/{EXTENSION}"
            except BuildError as error:
                raise SystemExit(f"aegis: {error}") from None
            build_data["pure_python"] = False
            build_data["tag"] = wheel_tag()


def main() -> int:
    try:
        print(install_in_place())
    except BuildError as error:
        print(f"aegis: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if __spec__ is not None:
        # ``python -m build`` in this folder means PyPA's build, which we shadow.
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
        runpy.run_module("build", run_name="__main__", alter_sys=True)
    else:
        sys.exit(main())
