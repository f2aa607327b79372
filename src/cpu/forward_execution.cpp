// Forward on the CPU: how many panels a task, how many splits, and the two passes of a run.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>

#include "cpu/backend.h"
#include "cpu/job_setup.h"

namespace attune::cpu {

namespace {

// Tasks that keys are split for when batch, heads and queries give fewer. A constant, not the
// number of threads: the same Problem must give the same bits on every machine width.
constexpr std::int64_t kTasksWanted = 64;
constexpr std::int64_t kMostPanels = 8;
// K and V are packed once for all tasks of a head when that takes no more than this; a longer
// context is packed block by block in each task, so that the workspace stays small beside it.
constexpr std::int64_t kMostPackedBytes = std::int64_t{256} << 20;

// Panels a task: many share the cost of packing a key block, few balance the threads. Any choice
// gives the same bits.
std::int64_t choose_panels(const Problem& problem, std::int64_t panels, int threads, bool packed) {
  // Packing a key block, or fetching a packed one, in panels' worth of products.
  const double kPackCost = packed ? 0.05 : 0.2;
  const double heads = static_cast<double>(problem.b * problem.hkv);
  std::int64_t best = 1;
  double best_cost = HUGE_VAL;
  for (std::int64_t count = 1; count <= std::min(kMostPanels, panels); ++count) {
    const std::int64_t tasks_per_head = (panels + count - 1) / count;
    const double tasks = heads * static_cast<double>(tasks_per_head);
    const double size = static_cast<double>(count) + kPackCost;
    // Causal tasks come longest first and pack well; equal ones come in rounds.
    const double cost = problem.mask.causal ? tasks * size / threads + 0.3 * size
                                            : std::ceil(tasks / threads) * size;
    if (cost < best_cost * 0.999) {
      best_cost = cost;
      best = count;
    }
  }
  return best;
}

class ForwardExecution final : public Execution {
 public:
  ForwardExecution(const Problem& problem, const KernelSpec& spec, int threads)
      : problem_(problem),
        kernel_(kernel_set(spec.isa)->forward[static_cast<int>(element_of(spec.dtype))]),
        threads_(threads) {
    fill_from_problem(problem, spec.isa, &job_);
    job_.panels_per_task = 1;
    KernelSizes sizes{};
    kernel_.sizes(job_, &sizes);
    const std::int64_t rows = job_.group * problem.sq;
    const std::int64_t panels = (rows + sizes.panel - 1) / sizes.panel;
    const std::int64_t heads = problem.b * problem.hkv;
    job_.splits = 1;
    job_.split_keys = problem.sk;
    if (heads * panels > 0 && heads * panels < kTasksWanted) {
      const std::int64_t least = 2 * job_.key_block;
      const std::int64_t wanted =
          std::min((kTasksWanted + heads * panels - 1) / (heads * panels), problem.sk / least);
      if (wanted > 1) {
        const std::int64_t blocks = (problem.sk + job_.key_block - 1) / job_.key_block;
        job_.split_keys = (blocks + wanted - 1) / wanted * job_.key_block;
        job_.splits = (problem.sk + job_.split_keys - 1) / job_.split_keys;
      }
    }
    job_.key_blocks = (problem.sk + job_.key_block - 1) / job_.key_block;
    const std::int64_t packed_bytes = heads * job_.key_blocks * sizes.packed * 4;
    // One panel a head would pack each block for itself alone.
    packed_ = panels > 1 && packed_bytes <= kMostPackedBytes;
    job_.panels_per_task =
        choose_panels(problem, std::max<std::int64_t>(1, panels), threads, packed_);
    job_.row_blocks = (panels + job_.panels_per_task - 1) / job_.panels_per_task;
    kernel_.sizes(job_, &sizes);
    sizes_ = sizes;
    tasks_ = heads * job_.row_blocks * job_.splits;
    threads_ = static_cast<int>(std::clamp<std::int64_t>(tasks_, 1, threads));

    Layout layout;
    sequences_at_ = layout.add(problem.b, sizeof(Sequence));
    if (job_.splits > 1) {
      partials_at_ = layout.add(tasks_ * job_.panels_per_task * sizes.partial, sizeof(float));
    }
    if (packed_) {
      packed_at_ = layout.add(heads * job_.key_blocks * sizes.packed, sizeof(float));
      packed_bad_at_ = layout.add(heads * job_.key_blocks, 1);
      packed_heads_at_ = layout.add(heads, sizeof(PackedHead));
    }
    scratch_at_ = layout.add(threads_ * round64(sizes.scratch), 1);
    bytes_ = layout.bytes();
  }

  [[nodiscard]] std::size_t workspace_bytes() const override { return bytes_; }

  [[nodiscard]] Tile tile() const override {
    return {std::max<std::int64_t>(1, sizes_.panel / job_.group), job_.key_block};
  }

  [[nodiscard]] std::string describe() const override {
    return fmt::format(
        "{}  tile       {} query rows a panel{}, {} panel{} a task, "
        "{} keys a step\n"
        "  tasks      {} on {} thread{}{}\n"
        "  workspace  {} bytes: {} a thread{}{}\n",
        describe_numbers(), sizes_.panel, grouped(job_.group), job_.panels_per_task,
        job_.panels_per_task == 1 ? "" : "s", job_.key_block, tasks_, threads_,
        threads_ == 1 ? "" : "s",
        job_.splits > 1 ? fmt::format("; keys split in {} ranges of {}, merged by their LSE",
                                      job_.splits, job_.split_keys)
                        : "",
        bytes_, round64(sizes_.scratch),
        job_.splits > 1 ? fmt::format(", {} for partial results",
                                      tasks_ * job_.panels_per_task * sizes_.partial * 4)
                        : "",
        packed_ ? fmt::format(", {} for K and V packed once",
                              problem_.b * problem_.hkv * job_.key_blocks * sizes_.packed * 4)
                : "");
  }

  void run(const Arguments& arguments, std::byte* workspace,
           const Executor& executor) const override {
    ForwardJob job = job_;
    auto* sequences = reinterpret_cast<Sequence*>(workspace + sequences_at_);
    fill_from_arguments(problem_, arguments, sequences, &job);
    job.o = strided(arguments.o, problem_.packed_q);
    job.partials = reinterpret_cast<float*>(workspace + partials_at_);
    auto* scratch = reinterpret_cast<char*>(workspace + scratch_at_);
    const std::int64_t each = round64(sizes_.scratch);

    job.packed = nullptr;
    PackedHead* heads = nullptr;
    if (packed_) {
      job.packed = reinterpret_cast<float*>(workspace + packed_at_);
      job.packed_bad = reinterpret_cast<std::uint8_t*>(workspace + packed_bad_at_);
      heads = reinterpret_cast<PackedHead*>(workspace + packed_heads_at_);
      std::fill_n(heads, problem_.b * problem_.hkv, PackedHead{});
    }
    const std::int64_t tasks_per_head = job.row_blocks * job.splits;
    for_each_chunked(executor, threads_, tasks_, [&](std::int64_t task, int worker) {
      char* own = scratch + worker * each;
      if (heads != nullptr) pack_head(job, task / tasks_per_head, heads, own);
      kernel_.task(job, task, own);
    });
    if (job.splits > 1) {
      for_each_chunked(executor, threads_, tasks_ / job.splits, [&](std::int64_t task, int worker) {
        kernel_.merge(job, task, scratch + worker * each);
      });
    }
    fill_unowned_tokens(problem_, arguments.o, sequences);
    if (problem_.lse != LseLayout::none) fill_unowned_lse(problem_, arguments.lse, sequences);
  }

 private:
  // Where what is computed with is not what is stored.
  [[nodiscard]] std::string describe_numbers() const {
    if (problem_.dtype != DType::f8e4m3) return {};
    return fmt::format(
        "  numbers    q, k and v are widened to f32 as tiles are packed{}; P and sums are f32, o "
        "is bf16\n",
        problem_.descale ? ", scores are multiplied by q_scale k_scale and o by v_scale" : "");
  }

  // How many blocks of a head's keys were begun, and how many are packed.
  struct PackedHead {
    std::int64_t begun = 0, done = 0;
  };

  // Returns when all keys of a head are packed. Who comes first packs, together with all who come
  // meanwhile: no phase of its own to wake threads for, and the blocks are still in the cache. What
  // is waited for is being packed by a thread that runs, on any executor.
  void pack_head(const ForwardJob& job, std::int64_t head, PackedHead* heads, char* scratch) const {
    std::atomic_ref<std::int64_t> begun(heads[head].begun), done(heads[head].done);
    if (done.load(std::memory_order_acquire) == job.key_blocks) return;
    for (std::int64_t block = begun++; block < job.key_blocks; block = begun++) {
      kernel_.pack(job, head * job.key_blocks + block, scratch);
      done.fetch_add(1, std::memory_order_acq_rel);
    }
    for (int tries = 0; done.load(std::memory_order_acquire) != job.key_blocks; ++tries) {
      if (tries > 1000) std::this_thread::yield();
    }
  }

  static std::int64_t round64(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }

  Problem problem_;
  ForwardKernel kernel_;
  int threads_;
  ForwardJob job_{};
  KernelSizes sizes_{};
  std::int64_t tasks_ = 0;
  bool packed_ = false;
  std::size_t sequences_at_ = 0, partials_at_ = 0, packed_at_ = 0, packed_bad_at_ = 0,
              packed_heads_at_ = 0, scratch_at_ = 0, bytes_ = 0;
};

}  // namespace

std::string grouped(std::int64_t heads) {
  return heads == 1 ? "" : fmt::format(" ({} query heads share keys)", heads);
}

std::unique_ptr<Execution> prepare_forward(const Problem& problem, const KernelSpec& spec,
                                           int threads) {
  return std::make_unique<ForwardExecution>(problem, spec, threads);
}

}  // namespace attune::cpu
