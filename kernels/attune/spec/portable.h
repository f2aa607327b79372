// What is fixed when a kernel of the portable family is compiled. Shared by host and device: no
// header is included, and the struct is structural, so that it can be a template argument.
#pragma once

namespace attune::kernel {

enum class Element : unsigned char { f32, f16, bf16, f8e4m3 };

constexpr int bytes_of(Element element) {
  if (element == Element::f8e4m3) return 1;
  return element == Element::f32 ? 4 : 2;
}

// Of o, where q, k and v are of `element`.
constexpr Element output_of(Element element) {
  return element == Element::f8e4m3 ? Element::bf16 : element;
}

// One row of the table. Masks, windows, lengths, packed sequences, grouped heads, sinks and the LSE
// are in every kernel; what costs registers or time when unused is compiled in or left out.
struct PortableSpec {
  Element element = Element::bf16;
  int arch = 80;        // first of its range: 75, 80, or 100 where those of 80 end
  int head_dim = 64;    // largest d and dv; 0: unbounded, o accumulated in global memory
  bool aligned = true;  // rows of q, k, v, o start at multiples of 16 bytes and have unit stride
  bool bias = false;
  bool dropout = false;
  bool general = false;          // softcap, ALiBi, any scale, pages
  int queries = 128, keys = 64;  // a tile
  int warps = 4;
  int stages = 2;       // buffers of K and of V
  int blocks = 1;       // that share a multiprocessor, which bounds the registers of a thread
  bool paired = false;  // two warps share 32 rows: half of the keys each for S, of dv for O
  friend constexpr bool operator==(const PortableSpec&, const PortableSpec&) = default;
};

constexpr int threads_of(const PortableSpec& spec) { return spec.warps * 32; }
constexpr bool takes_pages(const PortableSpec& spec) { return spec.general; }

}  // namespace attune::kernel
