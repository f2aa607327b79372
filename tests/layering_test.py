#!/usr/bin/env python3
"""Each stage includes only earlier stages, public headers only the standard library, and no file
outgrows one concept.

usage: layering_test.py SOURCE_DIR
"""

import pathlib
import re
import sys

# In order: a stage may include itself and every stage before it.
STAGES = "problem host spec select source cubin registry plan launch api".split()
# Folders beside the way, and the stages that they may include.
SIDE = {
    "cpu": {"problem", "host", "spec"},
    "oracle": {"problem"},
    "io": {"problem"},
}
MOST_LINES = 600
ANYTHING = {"capi", "cli", "wrap"}  # users of the library: they see all of it
# Who else may include a side folder. The CPU kernels join the way where plans are made; compiled
# kernels are read from files and written to them.
USES_SIDE = {"api": {"cpu"}, "cubin": {"io"}, "registry": {"io"}}
# The folder that implements each public header; a stage sees it as it sees that folder.
PUBLIC = {
    "export.h": "problem",
    "status.hpp": "problem",
    "tensor.hpp": "problem",
    "problem.hpp": "problem",
    "arguments.hpp": "problem",
    "executor.hpp": "host",
    "oracle.hpp": "oracle",
    "plan.hpp": "api",
    "kernels.hpp": "api",
    "attention.hpp": "api",
    "attune.h": "capi",
    "attune.hpp": "capi",
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
# Standard headers have neither a folder nor, but for C's, a suffix.
STANDARD = re.compile(r"^([a-z_0-9]+|(stddef|stdint|stdbool|string|math)\.h)$")


def allowed_for(folder):
    if folder in SIDE:
        return SIDE[folder] | {folder}
    position = STAGES.index(folder)
    return set(STAGES[: position + 1]) | USES_SIDE.get(folder, set())


def complaints(root):
    for path in sorted((root / "src").rglob("*")):
        if path.suffix not in {".cpp", ".h", ".hpp", ".inc"}:
            continue
        name = path.relative_to(root)
        folder = name.parts[1]
        if folder in ANYTHING:
            continue
        if folder not in SIDE and folder not in STAGES:
            yield f"{name}: src/{folder} is no stage; add it to tests/layering_test.py in its place"
            continue
        allowed = allowed_for(folder)
        for quote, target in INCLUDE.findall(path.read_text()):
            if quote == "<" and target.startswith("attune/"):
                header = target.removeprefix("attune/")
                if (root / "kernels" / target).is_file():
                    continue  # plain data shared with device code, which includes no stage
                owner = PUBLIC.get(header)
                if owner is None:
                    yield f"{name}: <{target}> belongs to no stage in tests/layering_test.py"
                    continue
            elif quote == '"':
                owner = target.split("/")[0]
                if not (root / "src" / target).is_file():
                    yield f'{name}: "{target}" is not a path below src/'
                    continue
            else:
                continue
            if owner not in allowed:
                yield f"{name}: includes {target} of {owner}; {folder} may include only " + ", ".join(
                    sorted(allowed)
                )

    for path in sorted((root / "include").rglob("*.h*")):
        name = path.relative_to(root)
        for _, target in INCLUDE.findall(path.read_text()):
            if target.startswith("attune/"):
                if not (root / "include" / target).is_file():
                    yield f"{name}: <{target}> does not exist"
            elif not STANDARD.match(target):
                yield f"{name}: includes {target}; public headers need only the standard library"

    for folder in ("include", "src", "tests", "bench", "python"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in {".cpp", ".h", ".hpp", ".c", ".py"}:
                lines = path.read_text().count("\n")
                if lines > MOST_LINES:
                    name = path.relative_to(root)
                    yield f"{name} has {lines} lines, more than {MOST_LINES}: is it one concept?"


def main():
    found = list(complaints(pathlib.Path(sys.argv[1])))
    print("\n".join(found) or "every include points backwards")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
