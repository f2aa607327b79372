// What the writer and the reader of bundles agree on.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace attune::bundle {

// magic, bytes of the manifest (little-endian), its content hash as text; then the manifest, then the
// compressed cubins, whose offsets count from the manifest's end.
struct Header {
  std::array<char, 8> magic;
  std::uint64_t manifest_bytes;
  std::array<char, 32> manifest_hash;
};
static_assert(sizeof(Header) == 48);

inline constexpr std::array<char, 8> kMagic = {'A', 'T', 'T', 'U', 'N', 'E', '1', '\n'};
inline constexpr std::uint64_t kFormat = 1;
inline constexpr std::uint64_t kMostManifestBytes = std::uint64_t{64} << 20;
inline constexpr std::uint64_t kMostCubinBytes = std::uint64_t{256} << 20;

}  // namespace attune::bundle
