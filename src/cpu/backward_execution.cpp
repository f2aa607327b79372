// Backward on the CPU: the shared workspace, and the passes of a run.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/backend.h"
#include "cpu/convert.h"
#include "cpu/job_setup.h"

namespace attune::cpu {

namespace {

std::int64_t round64(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }

class BackwardExecution final : public Execution {
 public:
  BackwardExecution(const Problem& problem, const KernelSpec& spec, int threads)
      : problem_(problem),
        kernel_(kernel_set(spec.isa)->backward[static_cast<int>(element_of(spec.dtype))]) {
    fill_from_problem(problem, spec.isa, &job_);
    // What one gradient shares between batches, heads or key blocks, one task must walk in order.
    const bool paged = problem.page_size > 0;
    job_.serial_b = paged || (problem.bias.grad && problem.bias.broadcast_b);
    job_.serial_h = problem.bias.grad && problem.bias.broadcast_h;
    job_.serial_k = paged || (problem.bias.grad && problem.bias.broadcast_k);
    job_.pages = problem.pages;
    kernel_.sizes(job_, &sizes_);
    const std::int64_t rows = job_.group * problem.sq;
    job_.panels = (rows + sizes_.panel - 1) / sizes_.panel;
    job_.steps = (job_.panels + sizes_.step_panels - 1) / sizes_.step_panels;
    job_.key_blocks = (problem.sk + job_.key_block - 1) / job_.key_block;
    units_ = problem.b * problem.hkv;
    tasks_ = (job_.serial_b ? std::min<std::int64_t>(1, problem.b) : problem.b) *
             (job_.serial_h ? 1 : problem.hkv) *
             (job_.serial_k ? std::min<std::int64_t>(1, job_.key_blocks) : job_.key_blocks);
    threads_ = static_cast<int>(
        std::clamp<std::int64_t>(std::max(tasks_, units_ * job_.panels), 1, threads));
    lay_out();
  }

  [[nodiscard]] std::size_t workspace_bytes() const override { return bytes_; }

  [[nodiscard]] Tile tile() const override {
    const std::int64_t rows = sizes_.panel * sizes_.step_panels;
    return {std::max<std::int64_t>(1, rows / job_.group), job_.key_block};
  }

  [[nodiscard]] std::string describe() const override {
    std::string shared;
    if (job_.serial_b || job_.serial_h || job_.serial_k) {
      shared = fmt::format("\n  in order   {}{}{}one task each: a gradient is summed over them",
                           job_.serial_b ? "batches, " : "", job_.serial_h ? "heads, " : "",
                           job_.serial_k ? "key blocks, " : "");
    }
    return fmt::format(
        "  tile       {} keys a block, {} query rows a step{}\n"
        "  tasks      {} key blocks on {} thread{}; dQ is summed in key order, the same on any "
        "number of threads{}\n"
        "  workspace  {} bytes: {} a thread, the rest packed Q and dO and the sums of dQ\n",
        job_.key_block, sizes_.panel * sizes_.step_panels, grouped(job_.group), tasks_, threads_,
        threads_ == 1 ? "" : "s", shared, bytes_, round64(sizes_.scratch));
  }

  void run(const Arguments& arguments, std::byte* workspace,
           const Executor& executor) const override {
    BackwardJob job = job_;
    auto* sequences = at<Sequence>(workspace, sequences_at_);
    fill_from_arguments(problem_, arguments, sequences, &job);
    point_into(workspace, &job);
    fill_from_backward_arguments(arguments, workspace, &job);
    auto* scratch = at<char>(workspace, scratch_at_);
    const std::int64_t each = round64(sizes_.scratch);

    std::memset(job.turns, 0, static_cast<std::size_t>(units_ * job.steps) * sizeof(std::int32_t));
    if (problem_.key_lengths || problem_.packed_k) {
      // Keys of no sequence are visited by no task.
      fill_rows(arguments.grad_k, 0, arguments.grad_k.shape[1], 0.0f);
      fill_rows(arguments.grad_v, 0, arguments.grad_v.shape[1], 0.0f);
    }
    for_each_task(executor, threads_, units_ * job.panels, [&](std::int64_t task, int worker) {
      kernel_.prepare(job, task, scratch + worker * each);
    });
    for_each_task(executor, threads_, tasks_, [&](std::int64_t task, int worker) {
      kernel_.task(job, task, scratch + worker * each);
    });
    for_each_task(executor, threads_, units_ * job.panels, [&](std::int64_t task, int worker) {
      kernel_.finish(job, task, scratch + worker * each);
    });
    fill_unowned_tokens(problem_, arguments.grad_q, sequences);
    if (job.page_sum != nullptr) write_pages(arguments, job);
    if (problem_.bias.grad && bias_at_ != kAbsent) write_bias(arguments, job);
    if (problem_.sink_grad) write_sink(arguments, job);
    if (problem_.alibi_grad) write_alibi(arguments, job);
  }

 private:
  static constexpr std::size_t kAbsent = ~std::size_t{0};

  template <typename T>
  static T* at(std::byte* workspace, std::size_t offset) {
    return offset == kAbsent ? nullptr : reinterpret_cast<T*>(workspace + offset);
  }

  void lay_out() {
    const std::int64_t all = units_ * job_.panels;
    Layout layout;
    sequences_at_ = layout.add(problem_.b, sizeof(Sequence));
    q_columns_at_ = layout.add(all * sizes_.panel_q, 1);
    q_rows_at_ = layout.add(all * sizes_.panel_q_rows, 1);
    o_columns_at_ = layout.add(all * sizes_.panel_o, 1);
    o_rows_at_ = layout.add(all * sizes_.panel_o_rows, 1);
    grad_q_at_ = layout.add(all * sizes_.partial, sizeof(float));
    row_lse_at_ = layout.add(all * sizes_.panel, sizeof(float));
    delta_at_ = layout.add(all * sizes_.panel, sizeof(float));
    bad_rows_at_ = layout.add(all, 1);
    turns_at_ = layout.add(units_ * job_.steps, sizeof(std::int32_t));
    if (problem_.alibi_grad) {
      alibi_at_ = layout.add(job_.key_blocks * problem_.b * problem_.hq, sizeof(double));
    }
    if (problem_.page_size > 0) {
      page_floats_ =
          problem_.hkv * problem_.pages * problem_.page_size * (problem_.d + problem_.dv);
      page_sum_at_ = layout.add(page_floats_, sizeof(float));
    }
    if (problem_.bias.grad) {
      bias_shape_ = {
          problem_.bias.broadcast_b ? 1 : problem_.b, problem_.bias.broadcast_h ? 1 : problem_.hq,
          problem_.bias.broadcast_q ? 1 : problem_.sq, problem_.bias.broadcast_k ? 1 : problem_.sk};
      bias_floats_ = bias_shape_[0] * bias_shape_[1] * bias_shape_[2] * bias_shape_[3];
      bias_at_ = layout.add(bias_floats_, sizeof(float));
    }
    scratch_at_ = layout.add(threads_ * round64(sizes_.scratch), 1);
    bytes_ = layout.bytes();
  }

  void point_into(std::byte* workspace, BackwardJob* job) const {
    job->q_columns = at<char>(workspace, q_columns_at_);
    job->q_rows = at<char>(workspace, q_rows_at_);
    job->o_columns = at<char>(workspace, o_columns_at_);
    job->o_rows = at<char>(workspace, o_rows_at_);
    job->grad_q_sum = at<float>(workspace, grad_q_at_);
    job->row_lse = at<float>(workspace, row_lse_at_);
    job->delta = at<float>(workspace, delta_at_);
    job->bad_rows = at<std::uint8_t>(workspace, bad_rows_at_);
    job->turns = at<std::int32_t>(workspace, turns_at_);
    job->alibi_parts = at<double>(workspace, alibi_at_);
    if (job->alibi_parts != nullptr) {
      std::fill_n(job->alibi_parts, job_.key_blocks * problem_.b * problem_.hq, 0.0);
    }
    job->page_sum = at<float>(workspace, page_sum_at_);
    if (job->page_sum != nullptr) std::fill_n(job->page_sum, page_floats_, 0.0f);
  }

  void fill_from_backward_arguments(const Arguments& arguments, std::byte* workspace,
                                    BackwardJob* job) const {
    job->o = strided(arguments.o, problem_.packed_q);
    job->grad_o = strided(arguments.grad_o, problem_.packed_q);
    job->grad_q = strided(arguments.grad_q, problem_.packed_q);
    job->grad_k = strided(arguments.grad_k, problem_.packed_k);
    job->grad_v = strided(arguments.grad_v, problem_.packed_k);
    job->grad_lse = nullptr;
    if (problem_.lse_grad) {
      const TensorView& grad = arguments.grad_lse;
      job->grad_lse = static_cast<const float*>(grad.data);
      job->grad_lse_b_stride = job->lse_packed ? 0 : grad.strides[0];
      job->grad_lse_h_stride = grad.strides[job->lse_packed ? 0 : 1];
      job->grad_lse_stride = grad.strides[job->lse_packed ? 1 : 2];
    }
    job->grad_bias = nullptr;
    if (problem_.bias.grad) {
      job->grad_bias = at<float>(workspace, bias_at_);
      std::fill_n(job->grad_bias, bias_floats_, 0.0f);
      job->grad_bias_k_stride = problem_.bias.broadcast_k ? 0 : 1;
      job->grad_bias_q_stride = problem_.bias.broadcast_q ? 0 : bias_shape_[3];
      job->grad_bias_h_stride = problem_.bias.broadcast_h ? 0 : bias_shape_[2] * bias_shape_[3];
      job->grad_bias_b_stride =
          problem_.bias.broadcast_b ? 0 : bias_shape_[1] * bias_shape_[2] * bias_shape_[3];
    }
  }

  void write_pages(const Arguments& arguments, const BackwardJob& job) const {
    const std::int64_t tokens = problem_.pages * problem_.page_size;
    const auto write = [&](const TensorView& out, const float* sums, std::int64_t n) {
      for (std::int64_t page = 0; page < problem_.pages; ++page) {
        for (std::int64_t slot = 0; slot < problem_.page_size; ++slot) {
          for (std::int64_t h = 0; h < problem_.hkv; ++h) {
            const float* sum = sums + (h * tokens + page * problem_.page_size + slot) * n;
            const std::int64_t base =
                page * out.strides[0] + slot * out.strides[1] + h * out.strides[2];
            for (std::int64_t c = 0; c < n; ++c) store_as(sum[c], out, base + c * out.strides[3]);
          }
        }
      }
    };
    write(arguments.grad_k, job.page_sum, problem_.d);
    write(arguments.grad_v, job.page_sum + problem_.hkv * tokens * problem_.d, problem_.dv);
  }

  void write_bias(const Arguments& arguments, const BackwardJob& job) const {
    const TensorView& out = arguments.grad_bias;
    const float* sum = job.grad_bias;
    for (std::int64_t b = 0; b < bias_shape_[0]; ++b) {
      for (std::int64_t h = 0; h < bias_shape_[1]; ++h) {
        for (std::int64_t i = 0; i < bias_shape_[2]; ++i) {
          const std::int64_t base = b * out.strides[0] + h * out.strides[1] + i * out.strides[2];
          for (std::int64_t j = 0; j < bias_shape_[3]; ++j) {
            store_as(*sum++, out, base + j * out.strides[3]);
          }
        }
      }
    }
  }

  // dSink_h = -sum over b, i of exp(sink_h - LSE) delta, with dLSE already taken off delta.
  void write_sink(const Arguments& arguments, const BackwardJob& job) const {
    for (std::int64_t h = 0; h < problem_.hq; ++h) {
      const std::int64_t hkv = h / job.group, g = h % job.group;
      const double unit = job.features ? 1.0 : M_LN2;  // of row_lse, in powers of e
      const auto sink = static_cast<double>(job.sink[h * job.sink_stride]);
      double sum = 0;
      for (std::int64_t b = 0; b < problem_.b; ++b) {
        const std::int64_t first = (b * problem_.hkv + hkv) * job.panels * sizes_.panel;
        for (std::int64_t i = 0; i < job.sequences[b].sq; ++i) {
          const std::int64_t row = first + i * job.group + g;
          sum -= std::exp(sink - static_cast<double>(job.row_lse[row]) * unit) *
                 static_cast<double>(job.delta[row]);
        }
      }
      store_as(static_cast<float>(sum), arguments.grad_sink, h * arguments.grad_sink.strides[0]);
    }
  }

  void write_alibi(const Arguments& arguments, const BackwardJob& job) const {
    const TensorView& out = arguments.grad_alibi_slopes;
    const bool per_batch = problem_.alibi == PerHead::batch_head;
    for (std::int64_t h = 0; h < problem_.hq; ++h) {
      double total = 0;
      for (std::int64_t b = 0; b < problem_.b; ++b) {
        double sum = 0;
        for (std::int64_t block = 0; block < job.key_blocks; ++block) {
          sum += job.alibi_parts[(block * problem_.b + b) * problem_.hq + h];
        }
        if (per_batch) {
          store_as(static_cast<float>(sum), out, b * out.strides[0] + h * out.strides[1]);
        }
        total += sum;
      }
      if (!per_batch) store_as(static_cast<float>(total), out, h * out.strides[0]);
    }
  }

  Problem problem_;
  BackwardKernel kernel_;
  int threads_ = 1;
  BackwardJob job_{};
  KernelSizes sizes_{};
  std::int64_t units_ = 0, tasks_ = 0;
  std::int64_t page_floats_ = 0, bias_floats_ = 0;
  std::array<std::int64_t, 4> bias_shape_{};
  std::size_t sequences_at_ = 0, q_columns_at_ = 0, q_rows_at_ = 0, o_columns_at_ = 0,
              o_rows_at_ = 0, grad_q_at_ = 0, row_lse_at_ = 0, delta_at_ = 0, bad_rows_at_ = 0,
              turns_at_ = 0, alibi_at_ = kAbsent, page_sum_at_ = kAbsent, bias_at_ = kAbsent,
              scratch_at_ = 0, bytes_ = 0;
};

}  // namespace

std::unique_ptr<Execution> prepare_backward(const Problem& problem, const KernelSpec& spec,
                                            int threads) {
  return std::make_unique<BackwardExecution>(problem, spec, threads);
}

}  // namespace attune::cpu
