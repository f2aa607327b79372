#include "wrap/triton_metadata.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <utility>

#include "io/tensor.h"
#include "wrap/json_tree.h"

namespace attune::wrap {

namespace {

using Kind = JsonNode::Kind;

class Reader {
 public:
  explicit Reader(const JsonNode& root) : root_(root) {}

  Expected<TritonMetadata> read() {
    if (root_.kind != Kind::object) {
      return at(root_.place, "an object was expected, Triton's metadata of a kernel");
    }
    TritonMetadata m;
    m.name = symbol();
    m.target.arch = architecture();
    LaunchShape& launch = m.launch;
    const std::int64_t warp = integer(root_, "warp_size", 32, 32, 32);
    launch.block = {integer(root_, "num_warps", 1, 32, 0) * warp, 1, 1};
    launch.shared_bytes = integer(root_, "shared", 0, std::int64_t{1} << 20, 0);
    clusters(launch);
    launch.cooperative = flag("launch_cooperative_grid");
    launch.programmatic = flag("launch_pdl");
    constexpr std::int64_t kMostScratch = std::int64_t{1} << 32;
    launch.global_scratch_bytes = integer(root_, "global_scratch_size", 0, kMostScratch, 0);
    launch.global_scratch_alignment = alignment("global_scratch_align");
    launch.profile_scratch_bytes = integer(root_, "profile_scratch_size", 0, kMostScratch, 0);
    launch.profile_scratch_alignment = alignment("profile_scratch_align");
    launch.scratch_parameters = true;
    descriptors(launch);
    // Blackwell's tensor memory is allocated by the kernel itself.
    (void)integer(root_, "tmem_size", 0, 512, 0);
    if (!status_.ok()) return status_;
    return m;
  }

 private:
  void refuse(const JsonNode& node, const std::string& why) {
    if (status_.ok()) status_ = at(node.place, why);
  }

  static bool is_there(const JsonNode* node) { return node != nullptr && node->kind != Kind::null; }

  // `standard` where the field is missing; below `least` means that it may not be.
  std::int64_t integer(const JsonNode& object, const char* name, std::int64_t least,
                       std::int64_t most, std::int64_t standard) {
    const JsonNode* node = object.field(name);
    if (!is_there(node)) {
      if (standard < least) refuse(object, fmt::format("{} is missing", name));
      return standard;
    }
    if (node->kind != Kind::integer) {
      refuse(*node, fmt::format("{} is {}; a whole number was expected", name, describe(*node)));
      return standard;
    }
    if (node->integer < least || node->integer > most) {
      refuse(*node,
             least == most
                 ? fmt::format("{} = {}, and it has to be {}", name, node->integer, least)
                 : fmt::format("{} = {} is not from {} to {}", name, node->integer, least, most));
      return standard;
    }
    return node->integer;
  }

  bool flag(const char* name) {
    const JsonNode* node = root_.field(name);
    if (!is_there(node)) return false;
    if (node->kind == Kind::integer && (node->integer == 0 || node->integer == 1)) {
      return node->integer == 1;
    }
    if (node->kind != Kind::boolean) {
      refuse(*node, fmt::format("{} is {}; true or false was expected", name, describe(*node)));
    }
    return node->boolean;
  }

  std::int64_t alignment(const char* name) {
    constexpr std::int64_t kMost = 256;  // of workspaces
    const std::int64_t value = integer(root_, name, 1, kMost, 1);
    if (!std::has_single_bit(static_cast<std::uint64_t>(value))) {
      refuse(*root_.field(name), fmt::format("{} = {} is no power of two", name, value));
      return 1;
    }
    return value;
  }

  std::string symbol() {
    const JsonNode* node = root_.field("name");
    if (!is_there(node)) {
      refuse(root_, "name is missing, the kernel's symbol");
      return {};
    }
    if (node->kind != Kind::text || node->text.empty() || node->text.size() > 4096) {
      refuse(*node, fmt::format("name is {}; the kernel's symbol was expected", describe(*node)));
    }
    return node->text;
  }

  int architecture() {
    const JsonNode* target = root_.field("target");
    if (target == nullptr || target->kind != Kind::object) {
      refuse(target == nullptr ? root_ : *target,
             "target is missing, an object with backend, arch and warp_size");
      return 0;
    }
    const JsonNode* backend = target->field("backend");
    if (backend == nullptr || backend->kind != Kind::text || backend->text != "cuda") {
      refuse(*target, fmt::format("target.backend is {}, and only \"cuda\" is wrapped",
                                  backend == nullptr ? "missing" : describe(*backend)));
    }
    (void)integer(*target, "warp_size", 32, 32, 32);
    return static_cast<int>(integer(*target, "arch", 50, 999, 0));
  }

  void clusters(LaunchShape& launch) {
    const std::int64_t ctas = integer(root_, "num_ctas", 1, 16, 1);
    launch.cluster = {ctas, 1, 1};
    launch.multiply_grid = ctas > 1;
    launch.spread = ctas > 1;
    const JsonNode* dims = root_.field("cluster_dims");  // up to Triton 3.5
    if (!is_there(dims)) return;
    if (dims->kind != Kind::array || dims->elements.size() != 3) {
      refuse(*dims,
             fmt::format("cluster_dims is {}; three numbers were expected", describe(*dims)));
      return;
    }
    std::int64_t blocks = 1;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      const JsonNode& dim = dims->elements[axis];
      if (dim.kind != Kind::integer || dim.integer < 1 || dim.integer > 16) {
        refuse(dim,
               fmt::format("cluster_dims[{}] is {}; 1 to 16 was expected", axis, describe(dim)));
        return;
      }
      launch.cluster[axis] = dim.integer;
      blocks *= dim.integer;
    }
    if (blocks == 1) launch.cluster = {ctas, 1, 1};
    if (blocks != 1 && blocks != ctas) {
      refuse(*dims, fmt::format("cluster_dims hold {} blocks, and num_ctas = {}", blocks, ctas));
    }
  }

  void descriptors(LaunchShape& launch) {
    const JsonNode* meta = root_.field("tensordesc_meta");
    if (!is_there(meta)) return;
    constexpr std::size_t kMost = 64;
    if (meta->kind != Kind::array || meta->elements.size() > kMost) {
      refuse(*meta, fmt::format("tensordesc_meta is {}; at most {} objects were expected",
                                describe(*meta), kMost));
      return;
    }
    for (const JsonNode& one : meta->elements) {
      if (one.kind != Kind::object) {
        refuse(one, fmt::format("tensordesc_meta has {}; objects were expected", describe(one)));
        return;
      }
      launch.descriptors.push_back(descriptor(one));
    }
    launch.has_descriptors = !launch.descriptors.empty();
  }

  DescriptorLayout descriptor(const JsonNode& node) {
    DescriptorLayout layout;
    layout.swizzle = static_cast<int>(integer(node, "swizzle", 0, 3, -1));
    layout.element_bytes = static_cast<int>(integer(node, "elem_size", 1, 8, 0));
    // The device's numbers of three types are not the driver's, CUtensorMapDataType.
    constexpr std::array kDriverTypes = {0, 1, 2, 3, 4, 5, 6, 7, 10, 8, 9, 11, 12, 13, 14, 15};
    const std::int64_t type = integer(node, "elem_type", 0, 15, -1);
    layout.element_type = type < 0 ? 0 : kDriverTypes[static_cast<std::size_t>(type)];
    const JsonNode* fp4 = node.field("fp4_padded");
    if (fp4 != nullptr && fp4->boolean) {
      refuse(*fp4, "tensordesc_meta: descriptors of padded fp4 are not wrapped");
    }
    const JsonNode* block = node.field("block_size");
    if (block == nullptr || block->kind != Kind::array || block->elements.empty() ||
        block->elements.size() > 5) {
      refuse(node, "tensordesc_meta: block_size is missing, one to five numbers");
      return layout;
    }
    for (const JsonNode& extent : block->elements) {
      if (extent.kind != Kind::integer || extent.integer < 1 || extent.integer > 256) {
        refuse(extent, fmt::format("tensordesc_meta: block_size has {}; 1 to 256 was expected",
                                   describe(extent)));
        return layout;
      }
      layout.block.push_back(extent.integer);
    }
    return layout;
  }

  const JsonNode& root_;
  Status status_;
};

}  // namespace

Expected<TritonMetadata> parse_triton_metadata(std::string_view text) {
  const auto root = parse_json(text);
  if (!root.ok()) return root.status();
  return Reader(*root).read();
}

}  // namespace attune::wrap
