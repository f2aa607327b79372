#!/usr/bin/env python3
"""Turns a Debian documentation package into one plain text file to train on.

Reads the .html, .txt and .md files of a package (by name, as a .deb, or unpacked in a folder),
strips the mark-up, drops duplicates, and writes

    OUT         the text, UTF-8
    OUT.json    where it came from: package, version, licence, copyright, SHA-256

so that whatever is made from the text can say whose words it holds. Standard library only;
`--package` also needs apt-get, and `--package` and `--deb` need dpkg-deb.

    python3 examples/prepare_text.py --package postgresql-doc-15 --out text.txt
"""

from __future__ import annotations

import argparse
import fnmatch
import gzip
import hashlib
import html.parser
import json
import pathlib
import re
import subprocess
import sys
import tempfile

# Lists of page numbers and links: no sentences to learn from.
DEFAULT_EXCLUDES = ("bookindex*", "genindex*", "search.html", "*changelog*", "copyright")

SUFFIXES = (".html", ".htm", ".txt", ".md", ".html.gz", ".txt.gz", ".md.gz")


class PlainText(html.parser.HTMLParser):
    """Collects the readable text of one HTML page; `text()` returns it."""

    SILENT = {"head", "script", "style", "nav", "header", "footer", "svg", "button"}
    # Classes of the boxes that carry links instead of prose (DocBook, Sphinx, Publican).
    SILENT_CLASSES = {"navheader", "navfooter", "sphinxsidebar", "related", "toc", "docnav",
                      "headerlink", "list-of-tables", "list-of-figures", "list-of-examples"}
    VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source",
            "track", "wbr"}
    PARAGRAPHS = {"p", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "table", "dl", "ul", "ol",
                  "blockquote", "section", "article"}
    LINES = {"br", "li", "dt", "dd", "tr", "div", "hr"}

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._pieces: list[str] = []
        self._silent_depth = 0  # open elements since (and with) the one that silenced us
        self._pre_depth = 0

    def handle_starttag(self, tag, attrs):
        if tag in self.VOID:
            if tag in self.LINES and not self._silent_depth:
                self._break("\n")
            return
        classes = set((dict(attrs).get("class") or "").lower().split())
        if self._silent_depth or tag in self.SILENT or classes & self.SILENT_CLASSES:
            self._silent_depth += 1
            return
        self._boundary(tag)
        self._pre_depth += tag == "pre"

    def handle_startendtag(self, tag, attrs):
        if tag in self.LINES and not self._silent_depth:
            self._break("\n")

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if self._silent_depth:
            self._silent_depth -= 1
            return
        self._boundary(tag)
        if tag == "pre" and self._pre_depth:
            self._pre_depth -= 1

    def handle_data(self, data):
        if self._silent_depth:
            return
        if not self._pre_depth:
            data = re.sub(r"\s+", " ", data.replace("\u00a0", " "))
            if not self._pieces or self._pieces[-1].endswith(("\n", " ")):
                data = data.lstrip(" ")
        if data:
            self._pieces.append(data)

    def _boundary(self, tag: str) -> None:
        if tag in self.PARAGRAPHS:
            self._break("\n\n")
        elif tag in self.LINES:
            self._break("\n")
        elif tag in ("td", "th"):
            self._break(" ")

    def _break(self, separator: str) -> None:
        if self._pieces and not self._pieces[-1].endswith(separator):
            self._pieces.append(separator)

    def text(self) -> str:
        joined = "".join(self._pieces)
        joined = re.sub(r"[ \t]+\n", "\n", joined)
        return re.sub(r"\n{3,}", "\n\n", joined).strip()


def read_page(path: pathlib.Path) -> str:
    """The text of one file. Bytes that are not UTF-8 become U+FFFD, never an exception."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    content = raw.decode("utf-8", errors="replace")
    if ".htm" not in path.name:
        return content.strip()
    parser = PlainText()
    parser.feed(content)
    parser.close()
    return parser.text()


def text_of_folder(folder: pathlib.Path, excludes=DEFAULT_EXCLUDES) -> str:
    """All readable pages below `folder`, in order of their paths, each text once."""
    seen: set[str] = set()
    pages: list[str] = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink() or not path.name.endswith(SUFFIXES):
            continue
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in excludes):
            continue
        page = read_page(path)
        if page and page not in seen:
            seen.add(page)
            pages.append(page)
    return "\n\n".join(pages) + "\n" if pages else ""


def licence_of_folder(folder: pathlib.Path) -> dict[str, str]:
    """Package name, licence name, copyright and licence text of the `Files: *` paragraph of a
    machine-readable debian/copyright below `folder`; an empty dict when there is none."""
    for path in sorted(folder.rglob("copyright")):
        if not path.is_file():
            continue
        paragraphs = [copyright_fields(p)
                      for p in re.split(r"\n\s*\n", path.read_text("utf-8", errors="replace"))]
        for fields in paragraphs:
            if fields.get("files", "").split() != ["*"] or "license" not in fields:
                continue
            name, _, words = fields["license"].partition("\n")
            if not words:
                words = next((p["license"].partition("\n")[2] for p in paragraphs
                              if "files" not in p and
                              p.get("license", "").split("\n")[0].strip() == name.strip()), "")
            return {"package": path.parent.name, "licence": name.strip(), "licence_text": words,
                    "copyright": fields.get("copyright", "").strip()}
    return {}


def copyright_fields(paragraph: str) -> dict[str, str]:
    """One paragraph of a debian/copyright file: lower-case field name -> value, one line of the
    value per line of the file."""
    fields: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in paragraph.splitlines():
        if line[:1] in (" ", "\t"):
            lines.append("" if line.strip() == "." else line.strip())
        elif ":" in line and not line.startswith("#"):
            name, _, value = line.partition(":")
            lines = fields.setdefault(name.strip().lower(), [])
            lines.append(value.strip())
    return {name: "\n".join(value) for name, value in fields.items()}


def deb_fields(deb: pathlib.Path) -> dict[str, str]:
    """Package name, version and source package of a .deb."""
    shown = subprocess.run(
        ["dpkg-deb", "--show",
         "--showformat=${Package}\\n${Version}\\n${source:Package}\\n", str(deb)],
        check=True, capture_output=True, text=True).stdout.split("\n")
    return {"package": shown[0], "version": shown[1], "source_package": shown[2]}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Turn a Debian documentation package into one text file.")
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("--package", help="a package name, fetched with `apt-get download`")
    origin.add_argument("--deb", type=pathlib.Path, help="a .deb file")
    origin.add_argument("--folder", type=pathlib.Path,
                        help="an unpacked package, or any folder of .html, .txt and .md files")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the text file to write")
    parser.add_argument("--exclude", action="append", default=[], metavar="GLOB",
                        help="file names to leave out besides the indexes (repeatable)")
    parser.add_argument("--licence", help="the licence, where the package's copyright file is "
                                          "not machine-readable")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as scratch:
        folder, deb = arguments.folder, arguments.deb
        if arguments.package:
            subprocess.run(["apt-get", "download", "-q", arguments.package], check=True,
                           cwd=scratch)
            deb = next(pathlib.Path(scratch).glob("*.deb"))
        if deb is not None:
            folder = pathlib.Path(scratch) / "unpacked"
            subprocess.run(["dpkg-deb", "--extract", str(deb), str(folder)], check=True)
        if not folder.is_dir():
            print(f"prepare_text: {folder} is not a folder", file=sys.stderr)
            return 1
        source = licence_of_folder(folder)
        if deb is not None:
            source.update(deb_fields(deb))
        if arguments.licence:
            source["licence"] = arguments.licence
        if not source.get("licence"):
            print("prepare_text: no machine-readable copyright file here, so I cannot name the "
                  "text's licence; read it and pass --licence NAME", file=sys.stderr)
            return 1
        text = text_of_folder(folder, (*DEFAULT_EXCLUDES, *arguments.exclude))
    if not text:
        print("prepare_text: no .html, .txt or .md file with text in it", file=sys.stderr)
        return 1

    encoded = text.encode("utf-8")
    source["sha256"] = hashlib.sha256(encoded).hexdigest()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(encoded)
    sidecar = arguments.out.with_name(arguments.out.name + ".json")
    sidecar.write_text(json.dumps(source, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"{arguments.out}: {len(encoded):,} bytes, licence {source['licence']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
