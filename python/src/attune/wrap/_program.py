"""A traced program: what `attune wrap` reads, in memory and as files."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import torch

from . import _safetensors


@dataclasses.dataclass
class Program:
    """What trace() returns.

    json: the program, as docs/wrap.md describes it, with file names relative to its folder
    kernels: Triton's metadata and machine code by file name, without the ending
    constants: by name
    recording: "case/name" of inputs, scalars and outputs of real runs, for `attune wrap --check`;
        empty where the function could not run
    """

    json: dict
    kernels: dict[str, tuple[str, bytes]]
    constants: dict[str, torch.Tensor]
    recording: dict[str, torch.Tensor]

    @property
    def name(self) -> str:
        return self.json["name"]

    def save(self, folder: str | pathlib.Path) -> pathlib.Path:
        """Writes NAME.json, its kernels, constants and recording into a folder, which is made;
        returns the path of NAME.json. `attune wrap NAME.json -o DIR --check
        NAME.recording.safetensors` goes on from there."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for stem, (metadata, cubin) in self.kernels.items():
            (folder / f"{stem}.json").write_text(metadata)
            (folder / f"{stem}.cubin").write_bytes(cubin)
        if self.constants:
            _safetensors.write(folder / f"{self.name}.safetensors", self.constants)
        if self.recording:
            _safetensors.write(folder / f"{self.name}.recording.safetensors", self.recording)
        path = folder / f"{self.name}.json"
        path.write_text(self.to_text())
        return path

    def to_text(self) -> str:
        """The program's JSON, a line for each thing that has a name."""
        parts = []
        for key, value in self.json.items():
            if isinstance(value, dict) and value:
                lines = [
                    f"    {json.dumps(name)}: {json.dumps(what)}" for name, what in value.items()
                ]
                parts.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n  }")
            elif isinstance(value, list) and value:
                lines = [f"    {json.dumps(what)}" for what in value]
                parts.append(f"  {json.dumps(key)}: [\n" + ",\n".join(lines) + "\n  ]")
            else:
                parts.append(f"  {json.dumps(key)}: {json.dumps(value)}")
        return "{\n" + ",\n".join(parts) + "\n}\n"
