// Plans, explanations and the table of kernels.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <attune/kernels.hpp>
#include <attune/plan.hpp>
#include <memory>
#include <optional>
#include <string>

#include "attention.h"

namespace attune::python {
namespace {

Problem problem_from(const std::string& text) {
  const Expected<Problem> problem = parse(text);
  raise_unless_ok(problem.status());
  return *problem;
}

PlanOptions options_from(const std::string& kernel, int threads, int device_index) {
  PlanOptions options;
  options.kernel = kernel;
  options.threads = threads;
  options.device_index = device_index;
  return options;
}

struct NamedTensor {
  const char* name;
  TensorView Arguments::*view;
  std::optional<Kind> written_by = {};  // whose result it is
};

constexpr std::array kTensors = {
    NamedTensor{"q", &Arguments::q},
    NamedTensor{"k", &Arguments::k},
    NamedTensor{"v", &Arguments::v},
    NamedTensor{"q_scale", &Arguments::q_scale},
    NamedTensor{"k_scale", &Arguments::k_scale},
    NamedTensor{"v_scale", &Arguments::v_scale},
    NamedTensor{"bias", &Arguments::bias},
    NamedTensor{"alibi_slopes", &Arguments::alibi_slopes},
    NamedTensor{"sink", &Arguments::sink},
    NamedTensor{"key_lengths", &Arguments::key_lengths},
    NamedTensor{"cu_seqlens_q", &Arguments::cu_seqlens_q},
    NamedTensor{"cu_seqlens_k", &Arguments::cu_seqlens_k},
    NamedTensor{"page_table", &Arguments::page_table},
    NamedTensor{"dropout_state", &Arguments::dropout_state},
    NamedTensor{"o", &Arguments::o, Kind::forward},
    NamedTensor{"lse", &Arguments::lse, Kind::forward},
    NamedTensor{"grad_o", &Arguments::grad_o},
    NamedTensor{"grad_lse", &Arguments::grad_lse},
    NamedTensor{"grad_q", &Arguments::grad_q, Kind::backward},
    NamedTensor{"grad_k", &Arguments::grad_k, Kind::backward},
    NamedTensor{"grad_v", &Arguments::grad_v, Kind::backward},
    NamedTensor{"grad_bias", &Arguments::grad_bias, Kind::backward},
    NamedTensor{"grad_sink", &Arguments::grad_sink, Kind::backward},
    NamedTensor{"grad_alibi_slopes", &Arguments::grad_alibi_slopes, Kind::backward},
};

// Every name of `tensors` is one of the above; q is among them.
Arguments arguments_from(Arrays& arrays, const nb::dict& tensors, Kind kind) {
  Arguments arguments;
  for (const auto& [key, array] : tensors) {
    const auto name = nb::cast<std::string>(key);
    const auto* const known =
        std::find_if(kTensors.begin(), kTensors.end(),
                     [&](const NamedTensor& tensor) { return name == tensor.name; });
    if (known == kTensors.end()) {
      throw nb::type_error(("a plan has no tensor '" + name + "'").c_str());
    }
    arguments.*(known->view) = arrays.read(array, known->name, known->written_by == kind);
  }
  return arguments;
}

nb::handle query_of(const nb::dict& tensors) {
  if (!tensors.contains("q")) throw nb::type_error("q is missing");
  return tensors["q"];
}

void run(const Plan& plan, const nb::dict& tensors, nb::handle workspace, std::uint64_t seed,
         std::uint64_t offset, std::int64_t stream) {
  Arrays arrays(query_of(tensors), stream);
  Arguments arguments = arguments_from(arrays, tensors, plan.problem().kind);
  const bool cuda = plan.device_index() >= 0;
  if (cuda != arrays.on_cuda()) {
    throw nb::value_error(cuda ? "the plan is for a GPU, but q is on the CPU"
                               : "the plan is for the CPU, but q is on a GPU");
  }
  arguments.dropout_seed = seed;
  arguments.dropout_offset = offset;
  arguments.stream = arrays.stream();
  const TensorView scratch = arrays.read(workspace, "workspace", true);
  if (!scratch.empty() && (scratch.dtype != DType::u8 || scratch.rank != 1)) {
    throw nb::value_error(("workspace is " + to_string(scratch) + "; it takes u8[bytes]").c_str());
  }
  Status status;
  {
    const nb::gil_scoped_release released;
    status = scratch.empty() ? plan.run(arguments)
                             : plan.run(arguments, {static_cast<std::byte*>(scratch.data),
                                                    static_cast<std::size_t>(scratch.shape[0])});
  }
  raise_unless_ok(status);
}

nb::dict explain(const std::string& text, const std::string& kernel, int threads, int device_index,
                 const std::string& arch) {
  PlanOptions options = options_from(kernel, threads, device_index);
  options.arch = arch;
  const Expected<Explanation> explained = explain_candidates(problem_from(text), options);
  raise_unless_ok(explained.status());
  nb::list candidates;
  for (const Explanation::Candidate& candidate : explained->candidates) {
    nb::dict entry;
    entry["kernel"] = candidate.kernel;
    entry["reasons"] = nb::cast(candidate.reasons);
    entry["note"] = candidate.note;
    candidates.append(entry);
  }
  nb::dict result;
  result["problem"] = print(explained->problem);
  result["kernel"] = explained->kernel;
  result["device"] = explained->device;
  result["tile"] = nb::make_tuple(explained->tile_queries, explained->tile_keys);
  result["text"] = explained->text;
  result["candidates"] = candidates;
  return result;
}

nb::list kernels() {
  nb::list rows;
  for (const KernelInfo& kernel : list_kernels()) {
    nb::dict row;
    row["id"] = kernel.id;
    row["family"] = kernel.family;
    row["kind"] = kernel.kind == Kind::forward ? "forward" : "backward";
    row["dtype"] = std::string(to_string(kernel.dtype));
    row["isa"] = kernel.isa;
    row["arch_begin"] = kernel.arch_begin;
    row["arch_end"] = kernel.arch_end;
    row["missing"] = kernel.missing;
    rows.append(row);
  }
  return rows;
}

}  // namespace

void bind_plans(nb::module_& module) {
  nb::class_<Plan>(module, "Plan")
      .def_static(
          "make",
          [](const std::string& text, const std::string& kernel, int threads, int device_index) {
            Expected<Plan> plan =
                make_plan(problem_from(text), options_from(kernel, threads, device_index));
            raise_unless_ok(plan.status());
            return std::move(plan).value();
          })
      .def_prop_ro("problem", [](const Plan& plan) { return print(plan.problem()); })
      .def_prop_ro("kernel", [](const Plan& plan) { return std::string(plan.kernel()); })
      .def_prop_ro("threads", &Plan::threads)
      .def_prop_ro("device_index", &Plan::device_index)
      .def_prop_ro("workspace_bytes", &Plan::workspace_bytes)
      .def("explain", &Plan::explain)
      .def("prepare",
           [](const Plan& plan) {
             Status status;
             {
               const nb::gil_scoped_release released;
               status = plan.prepare();
             }
             raise_unless_ok(status);
           })
      .def("run", &run, nb::arg("tensors"), nb::arg("workspace").none(), nb::arg("dropout_seed"),
           nb::arg("dropout_offset"), nb::arg("stream"));
  module.def("explain", &explain, nb::arg("problem"), nb::arg("kernel"), nb::arg("threads"),
             nb::arg("device_index"), nb::arg("arch"));
  module.def("kernels", &kernels);
}

}  // namespace attune::python
