// The reader of cubins on any bytes: facts, or a refusal with a reason; nothing past the end.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "cubin/cubin_facts.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto facts = attune::read_facts(std::as_bytes(std::span(data, size)), "attune_kernel");
  if (!facts.ok() && facts.status().message().empty()) std::abort();
  if (facts.ok() && facts->registers == 0) std::abort();
  return 0;
}
