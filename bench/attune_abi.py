"""libattune.so from Python, by its C ABI: what the benchmarks and the tests beside PyTorch need."""

import ctypes
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
DTYPES = {"f32": 0, "f16": 1, "bf16": 2, "bool": 4, "i32": 5, "i64": 6, "f8e4m3": 8}  # attune.h's numbers


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_int32), ("rank", ctypes.c_int32),
                ("shape", ctypes.c_int64 * 4), ("strides", ctypes.c_int64 * 4)]


class Arguments(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t)]
    _fields_ += [(name, Tensor) for name in (
        "q", "k", "v", "bias", "alibi_slopes", "sink", "key_lengths", "cu_seqlens_q",
        "cu_seqlens_k", "page_table")]
    _fields_ += [("dropout_seed", ctypes.c_uint64), ("dropout_offset", ctypes.c_uint64)]
    _fields_ += [(name, Tensor) for name in (
        "o", "lse", "grad_o", "grad_lse", "grad_q", "grad_k", "grad_v", "grad_bias", "grad_sink",
        "grad_alibi_slopes", "dropout_state")]
    _fields_ += [("stream", ctypes.c_void_p)]


class Doubles(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("count", ctypes.c_size_t)]


class PlanOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("threads", ctypes.c_int32),
                ("kernel", ctypes.c_char_p), ("executor", ctypes.c_void_p),
                ("executor_context", ctypes.c_void_p), ("has_device_index", ctypes.c_int32),
                ("device_index", ctypes.c_int32), ("arch", ctypes.c_char_p)]


class OracleResult(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t)]
    _fields_ += [(name, Doubles) for name in (
        "o", "lse", "grad_q", "grad_k", "grad_v", "grad_bias", "grad_sink", "grad_alibi_slopes")]


class Library:
    """libattune.so by its C ABI."""

    def __init__(self, path):
        self.path = path
        self.c = ctypes.CDLL(str(path))
        self.c.attune_version.restype = ctypes.c_char_p
        self.c.attune_last_error.restype = ctypes.c_char_p
        self.c.attune_plan_kernel.restype = ctypes.c_char_p
        self.c.attune_plan_kernel.argtypes = [ctypes.c_void_p]
        self.c.attune_plan_workspace_bytes.restype = ctypes.c_size_t
        self.c.attune_plan_workspace_bytes.argtypes = [ctypes.c_void_p]
        self.c.attune_plan_prepare.argtypes = [ctypes.c_void_p]
        self.c.attune_plan_explain.restype = ctypes.c_void_p
        self.c.attune_plan_explain.argtypes = [ctypes.c_void_p]
        self.c.attune_free.argtypes = [ctypes.c_void_p]
        self.c.attune_plan_destroy.restype = None
        self.c.attune_plan_destroy.argtypes = [ctypes.c_void_p]
        self.c.attune_plan_create.argtypes = [
            ctypes.c_char_p, ctypes.POINTER(PlanOptions), ctypes.POINTER(ctypes.c_void_p)]
        self.c.attune_plan_run.argtypes = [
            ctypes.c_void_p, ctypes.POINTER(Arguments), ctypes.c_void_p, ctypes.c_size_t]
        self.c.attune_oracle_run.argtypes = [
            ctypes.c_char_p, ctypes.POINTER(Arguments), ctypes.c_int32,
            ctypes.POINTER(OracleResult)]

    def check(self, status):
        if status != 0:
            raise RuntimeError(self.c.attune_last_error().decode())

    def version(self):
        return self.c.attune_version().decode()

    def compiler(self):
        """The compiler that left its name in the file."""
        found = re.search(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", self.path.read_bytes())
        return found.group().decode() if found else "unknown"


class Plan:
    def __init__(self, library, problem, threads=0, kernel=None):
        self.library = library
        self.handle = ctypes.c_void_p()
        options = PlanOptions(struct_size=ctypes.sizeof(PlanOptions), threads=threads,
                              kernel=kernel.encode() if kernel else None)
        library.check(library.c.attune_plan_create(problem.encode(), options,
                                                   ctypes.byref(self.handle)))
        self.kernel = library.c.attune_plan_kernel(self.handle).decode()
        self.workspace_bytes = library.c.attune_plan_workspace_bytes(self.handle)

    def __del__(self):
        self.library.c.attune_plan_destroy(self.handle)

    def prepare(self):
        self.library.check(self.library.c.attune_plan_prepare(self.handle))

    def explain(self):
        text = self.library.c.attune_plan_explain(self.handle)
        words = ctypes.string_at(text).decode()
        self.library.c.attune_free(text)
        return words

    def run(self, arguments, workspace=None):
        """workspace: an address of workspace_bytes; None has it allocated."""
        self.library.check(self.library.c.attune_plan_run(
            self.handle, arguments, workspace, self.workspace_bytes))


def view(tensor, dtype):
    """What Attune sees of a PyTorch tensor; the tensor has to stay alive."""
    rank = tensor.dim()
    return Tensor(tensor.data_ptr(), DTYPES[dtype], rank,
                  (ctypes.c_int64 * 4)(*tensor.shape), (ctypes.c_int64 * 4)(*tensor.stride()))


def commit():
    try:
        return subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], check=True,
                              capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
