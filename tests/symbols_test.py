#!/usr/bin/env python3
"""What the built files need and offer, read with readelf and nm.

usage: symbols_test.py library LIBRARY   the shared library: what it needs, what it exports
       symbols_test.py isa NAME OBJECT.. objects built for one instruction set: no code that the
                                         linker could share with the rest of the library
"""

import re
import subprocess
import sys

SYSTEM = re.compile(r"^(libc|libm|libdl|libstdc\+\+|libgcc_s|libpthread|libzstd|ld-linux[-\w]*)\.so")
# Our API, and what C++ itself emits for it. The standard library marks its own namespace visible.
OURS = re.compile(
    r"^(attune_\w+$|attune::|(vtable|typeinfo|typeinfo name|VTT) for (attune::|std::|__gnu_cxx::)"
    r"|guard variable for (attune::|std::)|.*\bstd::|operator (new|delete))"
)


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def library(path):
    dynamic = output("readelf", "--dynamic", "--wide", path)
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)
    soname = re.findall(r"\(SONAME\).*\[(.+)\]", dynamic)
    print("needs", *needed)
    if not needed:
        yield "readelf named no needed library; the check saw nothing"
    for name in needed:
        if not SYSTEM.match(name):
            yield f"{path} needs {name}; it may need only libc, libm, libstdc++, pthread and libzstd"
    if len(soname) != 1 or not re.fullmatch(r"libattune\.so\.\d+", soname[0]):
        yield f"{path} has soname {soname}; it should be libattune.so.<major>"

    exported = []
    for line in output("nm", "--dynamic", "--defined-only", "--demangle", path).splitlines():
        kind, name = line.split(" ", 2)[1:]
        exported.append(name)
        if re.search(r"\b(fmt|nlohmann|CLI|testing)::", name) or not OURS.match(name):
            yield f"{path} exports {name} ({kind}), which is not Attune's API"
    for name in ("attune::parse(", "attune::make_plan("):
        if not any(n.startswith(name) for n in exported):
            yield f"{path} does not export {name}...)"
    print(len(exported), "exported symbols")


def isa(name, objects):
    # Weak definitions (W, V, u) are what the linker merges across files: it keeps one copy, and
    # that one might be compiled for a larger instruction set than the machine has.
    weak = 0
    for path in objects:
        for line in output("nm", "--defined-only", "--demangle", path).splitlines():
            fields = line.split(" ", 2)
            if len(fields) < 3 or fields[1] not in "WVu":
                continue
            if fields[2].startswith("DW.ref."):
                continue  # a pointer to C++'s own exception handler: the same bytes for every set
            weak += 1
            if not re.search(rf"\b{name}::", fields[2]):
                yield (
                    f"{path}: {fields[2]} is shared code outside the namespace {name}; compiled for "
                    f"{name}, it may be what other machines run"
                )
    print(len(objects), "objects,", weak, "weak symbols, all in the namespace", name)


def main():
    found = list(library(sys.argv[2]) if sys.argv[1] == "library" else isa(sys.argv[2], sys.argv[3:]))
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
