#!/usr/bin/env python3
"""The documents say what is so: the support matrix is the command's own output, links lead
somewhere, and each environment variable stands in docs/environment.md.

usage: readme_test.py ATTUNE SOURCE_DIR [--update]    --update rewrites the support matrix
"""

import pathlib
import re
import subprocess
import sys

BLOCK = re.compile(r"(<!-- begin: attune list --markdown -->\n)(.*?)(<!-- end -->)", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
CODE = re.compile(r"^```.*?^```|^(?: {4}|\t).*?$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
VARIABLE = re.compile(r"\bATTUNE_[A-Z0-9_]+\b")


def matrix(attune, readme, update):
    wanted = subprocess.run(
        [attune, "list", "--markdown"], check=True, capture_output=True, text=True
    ).stdout
    text = readme.read_text()
    block = BLOCK.search(text)
    if not block:
        yield "README.md has no block '<!-- begin: attune list --markdown --> ... <!-- end -->'"
    elif block.group(2).strip() != wanted.strip():
        if update:
            readme.write_text(text[: block.start(2)] + wanted.strip() + "\n" + text[block.end(2) :])
            print("README.md: support matrix rewritten")
        else:
            yield (
                "README.md: the support matrix is not what `attune list --markdown` prints; run\n"
                "  tests/readme_test.py build/src/attune . --update"
            )


def links(root):
    for path in [*root.glob("*.md"), *(root / "docs").rglob("*.md")]:
        for target in LINK.findall(CODE.sub("", path.read_text())):
            if "://" in target or target.startswith("mailto:"):
                continue
            if not (path.parent / target).exists():
                yield f"{path.relative_to(root)}: the link to {target} leads nowhere"


def variables(root):
    table = (root / "docs" / "environment.md").read_text()
    documented = set(VARIABLE.findall(table))
    one_place = root / "src" / "host" / "environment.cpp"
    read = set(re.findall(r'"(ATTUNE_\w+)"', one_place.read_text()))
    for path in sorted((root / "src").rglob("*.cpp")):
        for name in re.findall(r'getenv\(\s*"(\w+)"', path.read_text()):
            yield f"{path.relative_to(root)} reads {name} past {one_place.relative_to(root)}"
        for name in re.findall(r'environment\(\s*"(\w+)"', path.read_text()):
            if name not in table:
                yield f"{path.relative_to(root)} reads {name}; docs/environment.md does not say so"
    for name in sorted(read - documented):
        yield f"the table in {one_place.name} has {name}, and docs/environment.md does not"
    for name in sorted(documented - read):
        yield f"docs/environment.md names {name}, which no source reads"


def main():
    attune, root = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    found = [
        *matrix(attune, root / "README.md", "--update" in sys.argv[3:]),
        *links(root),
        *variables(root),
    ]
    print("\n".join(found) or "the documents are current")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
