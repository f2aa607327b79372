#include "tests/gpu/other_work.h"

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <utility>

namespace attune::testing {

Expected<OtherWork> OtherWork::make(cuda::Stream stream) {
  OtherWork work(stream);
  for (const char* words : {"hq=5 sq=1024 sk=8192 d=128", "hq=2 sq=300 sk=20000 d=64",
                            "b=2 hq=16 sq=1024 sk=1024 d=64"}) {
    const Expected<Problem> problem =
        parse(std::string("backward lse device=cuda dtype=bf16 ") + words);
    if (!problem.ok()) return problem.status();
    Expected<BackwardCase> tensors = BackwardCase::make(*problem);
    if (!tensors.ok()) return tensors.status();
    if (Status status = tensors->draw(1); !status.ok()) return status;
    Expected<Plan> plan = make_plan(forward_of(*problem));
    if (!plan.ok()) return plan.status();
    work.passes_.push_back({std::move(tensors).value(), std::move(plan).value()});
  }
  return work;
}

Status OtherWork::add() {
  for (std::int64_t left = random_.integer(0, 3); left > 0; --left) {
    const Pass& pass =
        passes_[static_cast<std::size_t>(random_.integer(0, std::ssize(passes_) - 1))];
    Arguments arguments = pass.tensors.forward_arguments();
    arguments.stream = stream_;
    if (Status status = pass.plan.run(arguments); !status.ok()) return status;
  }
  return {};
}

}  // namespace attune::testing
