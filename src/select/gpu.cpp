#include "select/gpu.h"

#include <fmt/format.h>

#include <attune/arguments.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>

#include "problem/shapes.h"
#include "problem/strides.h"
#include "select/hopper_mates.h"
#include "spec/gpu_row.h"
#include "spec/hopper_table.h"

namespace attune {

namespace {

constexpr std::int64_t kLoadBytes = 16;  // of an aligned row

class Reasons {
 public:
  Reasons(const KernelSpec& spec, const Problem& problem, const DeviceFacts& device)
      : spec_(spec), row_(gpu_row_of(spec)), p_(problem), device_(device) {}

  std::vector<std::string> all() {
    architecture();
    head_dim();
    if (row_.aligned) alignment();
    if (spec_.family == Family::hopper) {
      mates();
      boxes();
    }
    features();
    if (p_.kind == Kind::backward && p_.page_size > 0) {
      add("paged keys have no gradient on a GPU: use device=cpu, or gather the pages into k and v "
          "first");
    }
    shared_memory();
    return std::move(reasons_);
  }

 private:
  template <typename... T>
  void add(fmt::format_string<T...> format, T&&... values) {
    reasons_.push_back(fmt::format(format, std::forward<T>(values)...));
  }

  // What to do where no row of this family serves: eighths have no other.
  [[nodiscard]] std::string or_else(std::string portable) const {
    if (p_.dtype != DType::f8e4m3) return portable;
    return "no other GPU row takes f8e4m3, use device=cpu, or f16 or bf16";
  }

  void architecture() {
    const ArchRange range = spec_.archs;
    if (spec_.family == Family::hopper && device_.arch != range.begin) {
      add("it is made of sm_{}'s own instructions, the device is sm_{}: {}", range.begin,
          device_.arch, or_else("a portable row serves it"));
    } else if (device_.arch < range.begin) {
      add("it is for sm_{} and later, the device is sm_{}", range.begin, device_.arch);
    } else if (device_.arch >= range.end) {
      add("it is for sm_{} up to sm_{}, the device is sm_{}: the sm_{} rows serve it", range.begin,
          range.end - 1, device_.arch, range.end);
    }
  }

  void head_dim() {
    if (row_.head_dim == 0) return;
    bound("d", p_.d, row_.head_dim);
    bound("dv", p_.dv, row_.value_dim);
  }
  void bound(const char* name, std::int64_t value, int most) {
    if (value <= most) return;
    constexpr std::int64_t kMostBound = 256;  // of rows that have one
    add("{} = {} is above its bound of {}: {}", name, value, most,
        value <= kMostBound ? "a row with a larger bound, or dany, takes it"
                            : or_else("a row with a larger bound, or dany, takes it"));
  }

  void mates() {
    if (!spec_.hopper.mates) return;
    if (std::string reason = reason_against_mates(spec_.hopper, p_); !reason.empty()) {
      reasons_.push_back(std::move(reason));
    }
  }

  // Each of q, k, v, o: rows of a multiple of 16 bytes, that start at one. The strides of gradients are
  // known at the run alone (plan/backward_portable.h).
  void alignment() {
    const auto size = static_cast<std::int64_t>(size_of(p_.dtype));
    const std::int64_t elements = kLoadBytes / size;
    if (p_.alignment % kLoadBytes != 0) {
      add("q, k, v and o start at multiples of {} bytes (align={}), it loads {} at a time: "
          "align them to {}{}",
          p_.alignment, p_.alignment, kLoadBytes, kLoadBytes,
          p_.kind == Kind::backward ? ", and their gradients" : "");
    }
    if (p_.d % elements != 0) width("d", p_.d, elements);
    if (p_.dv % elements != 0) width("dv", p_.dv, elements);
    for (const TensorSpec& tensor : tensors_of(p_)) {
      if (tensor.strides == nullptr || tensor.role == Role::unused) continue;
      strides(tensor, kLoadBytes / static_cast<std::int64_t>(size_of(tensor.dtype)));
    }
  }

  void width(const char* name, std::int64_t value, std::int64_t elements) {
    add("{} = {} is not a multiple of {}, the {} elements of 16 bytes: pad it to {} with zeros",
        name, value, elements, to_string(p_.dtype), (value + elements - 1) / elements * elements);
  }

  void strides(const TensorSpec& tensor, std::int64_t elements) {
    const Extents strides = resolve_strides(tensor.shape, *tensor.strides, tensor.rank);
    constexpr const char* kAxes[] = {"sequence", "token", "head"};
    for (std::size_t axis = 0; axis < 3; ++axis) {
      // Contiguous rows whose width is at fault were named above.
      if (tensor.shape[axis] <= 1 || strides[axis] % elements == 0) continue;
      if (*tensor.strides == Problem::Strides{}) continue;
      add("{}_strides[{}] = {}, from {} to {}, is not a multiple of {} elements (16 bytes): pad "
          "it to {}",
          tensor.name, axis, strides[axis], kAxes[axis], kAxes[axis], elements,
          (strides[axis] + elements - 1) / elements * elements);
    }
    if (tensor.shape[3] > 1 && strides[3] != 1) {
      add("{}_strides[3] = {}: it needs neighbours in memory, 1", tensor.name, strides[3]);
    }
  }

  // What the copy engine asks of q, k and v beside that (CUDA driver API, cuTensorMapEncodeTiled).
  void boxes() {
    constexpr std::int64_t kStrideEnd = std::int64_t{1} << 40;  // in bytes
    const auto size = static_cast<std::int64_t>(size_of(p_.dtype));
    constexpr std::int64_t kTilesEnd = std::int64_t{1} << 31;
    std::int64_t rows = 0;  // more than tiles
    if (__builtin_mul_overflow(p_.b * p_.hq, p_.sq / row_.queries + 2, &rows) ||
        rows >= kTilesEnd) {
      add("b * hq * sq = {} * {} * {} makes 2^31 tiles or more: {}", p_.b, p_.hq, p_.sq,
          or_else("a portable row counts on"));
    }
    if (p_.page_size > 0) pages();
    for (const TensorSpec& tensor : tensors_of(p_)) {
      if (tensor.strides == nullptr || tensor.role != Role::input) continue;
      if (row_major_view(tensor).elements() == 0) {
        add("{} has no element, and the copy engine takes no empty tensor: {}", tensor.name,
            or_else("a portable row does"));
        continue;
      }
      const Extents strides = resolve_strides(tensor.shape, *tensor.strides, tensor.rank);
      for (std::size_t axis = 0; axis < 3; ++axis) {
        if (tensor.shape[axis] <= 1) continue;
        if (strides[axis] > 0 && strides[axis] < kStrideEnd / size) continue;
        add("{}_strides[{}] = {}: the copy engine takes strides from 1 to below 2^40 bytes; {}",
            tensor.name, axis, strides[axis], or_else("a portable row takes any"));
      }
    }
  }

  // A tile of keys is copied page by page, to where the engine's pattern of 8 rows begins.
  void pages() {
    constexpr int kPattern = 8;
    if (box_keys(spec_.hopper, p_.page_size) % kPattern == 0) return;
    add("page_size = {}: a tile of {} keys is copied in pieces of what both are multiples of, "
        "which "
        "has to be a multiple of {}: {}",
        p_.page_size, row_.keys, kPattern, or_else("a portable full row takes pages of any size"));
  }

  // Its tiles are copied as q, k and v are.
  void bias() {
    const Bias& bias = p_.bias;
    if (bias.kind == BiasKind::none) {
      add("there is no bias: a plain row leaves it out");
      return;
    }
    if (bias.dtype != p_.dtype) {
      add("the bias is {}, and it takes {}: a portable bias row takes any", to_string(bias.dtype),
          to_string(p_.dtype));
    }
    if (bias.broadcast_q || bias.broadcast_k) {
      add("the bias is broadcast over {}, and it copies tiles of queries x keys: a portable bias "
          "row takes it",
          bias.broadcast_q ? "queries" : "keys");
    }
    if (p_.sq == 0 || p_.sk == 0 || (p_.b == 0 && !bias.broadcast_b)) {
      add("the bias has no element, and the copy engine takes no empty tensor: {}",
          or_else("a portable bias row does"));
    }
    if (!bias.aligned) {
      add("the bias's rows need not start at multiples of 16 bytes: say so where they do "
          "(bias_aligned)");
    }
  }

  // Portable rows draw either stream.
  void dropout() {
    const bool fa2 = p_.dropout_stream == DropoutStream::fa2;
    const char* const row = fa2 && spec_.family == Family::hopper ? "fa2dropout" : "dropout";
    if (!row_.dropout) {
      missing("dropout", row);
    } else if (spec_.family == Family::hopper && spec_.hopper.bytes != fa2) {
      add("it draws dropout_stream = {}, and the problem's is {}: {}", fa2 ? "curand" : "fa2",
          fa2 ? "fa2" : "curand", or_else(fmt::format("a {} row draws that", row)));
    }
  }

  void features() {
    if (!row_.bias && p_.bias.kind != BiasKind::none) missing("bias", "bias");
    if (spec_.family == Family::hopper && row_.bias) bias();
    const bool hopper = spec_.family == Family::hopper;
    if (p_.dropout > 0) dropout();
    if (hopper && p_.softcap > kernel::kMostHopperSoftcap) {
      add("softcap = {} is above {}, to which its tanh is precise: {}", p_.softcap,
          kernel::kMostHopperSoftcap, or_else("a portable full row takes any"));
    }
    if (hopper && !spec_.hopper.lse && p_.lse != LseLayout::none) {
      add("its rows' sums are of rounded weights, too coarse for the LSE: a plain row has it");
    }
    if (row_.general) return;
    const char* const general = hopper ? "general" : "full";
    if (p_.softcap > 0) missing("softcap", general);
    if (p_.alibi != PerHead::none) missing("ALiBi", general);
    if (p_.page_size > 0 && p_.kind == Kind::forward && !hopper) {
      missing("paged keys", "full");
    }
    if (!(static_cast<float>(p_.effective_scale()) > 0)) {
      add("scale = {} is not positive, and it takes only positive ones: {}", p_.effective_scale(),
          or_else(fmt::format("a {} row takes any", general)));
    }
  }

  void missing(const char* feature, const char* row) {
    add("{} is not compiled in: {}", feature, or_else(fmt::format("a {} row has it", row)));
  }

  void shared_memory() {
    const std::int64_t needed = row_.shared_bytes;
    if (needed <= device_.shared_per_block) return;
    add("it needs {} bytes of shared memory a block, sm_{} offers {}: a row with a smaller tile "
        "or a smaller head dim",
        needed, device_.arch, device_.shared_per_block);
  }

  const KernelSpec& spec_;
  const GpuRow row_;
  const Problem& p_;
  const DeviceFacts& device_;
  std::vector<std::string> reasons_;
};

}  // namespace

std::vector<std::string> reasons_against_gpu_row(const KernelSpec& spec, const Problem& problem,
                                                 const DeviceFacts& device) {
  return Reasons(spec, problem, device).all();
}

}  // namespace attune
