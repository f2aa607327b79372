#include "wrap/blueprint.h"

#include <attune/params.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "plan/grid.h"
#include "source/translation_unit.h"
#include "wrap/kernel_step.h"
#include "wrap/naming.h"
#include "wrap/runtime/image.h"
#include "wrap/temporaries.h"

namespace attune::wrap {

namespace {

constexpr std::int64_t kMostWorkspace = std::int64_t{1} << 62;

std::string file_name(const Program& program, std::string_view kernel, const Target& target,
                      std::string_view suffix) {
  return fmt::format("{}.{}.{}{}", program.name, kernel, to_string(target), suffix);
}

class Builder {
 public:
  Builder(const Program& program, const GenerateOptions& options) : program_(program) {
    b_.program = &program;
    b_.options = options;
  }

  Expected<Blueprint> build() {
    for (const TensorDeclaration& tensor : program_.tensors) {
      b_.place.push_back(names_.unique(tensor.name));
    }
    const std::size_t steps = program_.steps.size();
    b_.choices.resize(steps);
    b_.attention.resize(steps);
    b_.global_scratch.resize(steps);
    b_.profile_scratch.resize(steps);
    b_.attention_scratch.resize(steps);
    needs_ = needs_of_temporaries(program_);
    for (std::size_t i = 0; i < steps; ++i) {
      if (Status status = step(i); !status.ok()) return status;
    }
    if (Status status = workspace(); !status.ok()) return status;
    constants();
    return std::move(b_);
  }

 private:
  Status step(std::size_t i) {
    const Step& step = program_.steps[i];
    if (const auto* attention = std::get_if<AttentionStep>(&step.action)) {
      return this->attention(i, *attention);
    }
    const auto* kernel = std::get_if<KernelStep>(&step.action);
    if (kernel == nullptr) return {};
    const Kernel& k = program_.kernels[kernel->kernel];
    if (b_.options.cpu) {
      if (k.fallback) return {};
      return at(step.place, fmt::format("step {}: kernel {} has no \"fallback\", a function that "
                                        "computes the same on the CPU",
                                        step.name, k.name));
    }
    if (k.configurations.empty()) {
      return at(
          step.place,
          fmt::format("step {}: kernel {} has no \"binaries\"; --device cpu takes its fallback",
                      step.name, k.name));
    }
    for (std::size_t c = 0; c < k.configurations.size(); ++c) {
      if (Status status = choice(i, *kernel, c); !status.ok()) return status;
    }
    need(i, global_scratch_bytes(program_, *kernel), step.name + " global scratch",
         b_.global_scratch[i]);
    need(i, profile_scratch_bytes(program_, *kernel), step.name + " profile scratch",
         b_.profile_scratch[i]);
    return {};
  }

  // Configurations that can't hold at this step are left out.
  Status choice(std::size_t i, const KernelStep& step, std::size_t c) {
    const Kernel& kernel = program_.kernels[step.kernel];
    const Configuration& configuration = kernel.configurations[c];
    for (const Condition& condition : conditions_of(program_, step, configuration)) {
      if (is_number(condition.holds, 0)) return {};
    }
    KernelChoice choice;
    choice.configuration = c;
    const auto known = variant_of_.find({step.kernel, c});
    if (known != variant_of_.end()) {
      choice.variant = known->second;
    } else {
      choice.variant = b_.variants.size();
      variant_of_[{step.kernel, c}] = choice.variant;
      b_.variants.push_back(
          {kernel.name, configuration.name, b_.binaries.size(), configuration.binaries.size()});
      for (const Binary& binary : configuration.binaries) add_binary(kernel, configuration, binary);
    }
    for (const Binary& binary : configuration.binaries) {
      auto values = checked_launch_values(kernel, configuration, binary);
      if (!values.ok()) return at(binary.place, values.status().message());
      const bool same =
          choice.values.empty() ||
          std::equal(values->begin(), values->end(), choice.values.begin(), choice.values.end(),
                     [](const LaunchValue& a, const LaunchValue& b) {
                       return a.kind == b.kind && a.bytes == b.bytes && a.parameter == b.parameter;
                     });
      if (!same) {
        return at(binary.place, fmt::format("{}: kernel {}, {}: it takes other parameters than the "
                                            "configuration's other files",
                                            binary.path.string(), kernel.name, configuration.name));
      }
      choice.values = *std::move(values);
    }
    b_.choices[i].push_back(std::move(choice));
    return {};
  }

  void add_binary(const Kernel& kernel, const Configuration& configuration, const Binary& binary) {
    const std::string_view suffix = binary.form == BinaryForm::cubin ? ".cubin"
                                    : binary.form == BinaryForm::ptx ? ".ptx"
                                                                     : ".fatbin";
    std::vector<std::uint32_t> sizes;
    const auto values = checked_launch_values(kernel, configuration, binary);
    if (values.ok()) {
      for (const LaunchValue& value : *values) sizes.push_back(value.bytes);
    }
    b_.binaries.push_back(
        {image({reinterpret_cast<const char*>(binary.bytes.data()), binary.bytes.size()},
               file_name(program_, kernel.name, binary.target, suffix)),
         binary.symbol, binary.target, binary.form, binary.launch, std::move(sizes)});
  }

  std::size_t image(std::string bytes, const std::string& name) {
    for (std::size_t i = 0; i < b_.images.size(); ++i) {
      if (b_.images[i].bytes == bytes) return i;
    }
    std::string file = name;
    const std::size_t dot = name.rfind('.');
    for (int n = 2; std::any_of(b_.images.begin(), b_.images.end(),
                                [&](const PackageImage& i) { return i.file == file; });
         ++n) {
      file = fmt::format("{}.{}{}", name.substr(0, dot), n, name.substr(dot));
    }
    const std::uint64_t hash = hash_of(bytes);
    b_.images.push_back({std::move(file), std::move(bytes), hash});
    return b_.images.size() - 1;
  }

  Status attention(std::size_t i, const AttentionStep& step) {
    const Step& place = program_.steps[i];
    const auto refused = [&](const Status& status) {
      return at(place.place, fmt::format("step {}: {}", place.name, status.message()));
    };
    const Device device = b_.options.cpu ? Device::cpu : Device::cuda;
    if (const Status status = check_attention(program_, step, device); !status.ok()) {
      return refused(status);
    }
    if (b_.options.cpu) return {};
    auto chosen = choose_rows(program_, step, b_.options.archs);
    if (!chosen.ok()) return refused(chosen.status());
    for (AttentionRow& row : chosen->rows) {
      const std::string id = id_of(row.spec);
      const auto known = std::find_if(b_.variants.begin(), b_.variants.end(),
                                      [&](const PackageVariant& v) { return v.kernel == id; });
      row.variant = static_cast<std::size_t>(known - b_.variants.begin());
      if (known != b_.variants.end()) continue;
      b_.variants.push_back({id, "attention", b_.binaries.size(), row.images.size()});
      const BlockShape shape = block_shape(row.spec);
      for (const auto& built : row.images) {
        PackageBinary binary;
        binary.image =
            image({reinterpret_cast<const char*>(built->cubin.data()), built->cubin.size()},
                  file_name(program_, id, built->target, ".cubin"));
        binary.symbol = kEntryName;
        binary.target = built->target;
        binary.launch.block = {shape.threads, 1, 1};
        binary.launch.shared_bytes = shape.shared_bytes;
        binary.parameter_bytes = {static_cast<std::uint32_t>(sizeof(kernel::ForwardParams))};
        b_.binaries.push_back(std::move(binary));
      }
    }
    need(i, chosen->workspace_bytes, place.name + " accumulator", b_.attention_scratch[i]);
    b_.attention[i] = *std::move(chosen);
    return {};
  }

  void need(std::size_t step, const Expression& bytes, const std::string& name,
            std::string& place) {
    if (is_number(bytes, 0)) return;
    place = names_.unique(name);
    scratch_.emplace_back(place, needs_.needs.size());
    needs_.needs.push_back({name, bytes, step, step});
  }

  Status workspace() {
    const WorkspacePlan plan = plan_workspace(program_, needs_.needs);
    b_.slots = plan.slots;
    for (std::size_t i = 0; i < program_.tensors.size(); ++i) {
      if (needs_.need_of[i] < 0) continue;
      b_.residents.push_back(
          {b_.place[i], plan.slot_of[static_cast<std::size_t>(needs_.need_of[i])]});
    }
    for (const auto& [place, need] : scratch_) {
      b_.residents.push_back({place, plan.slot_of[need]});
    }
    Expression all(0);
    for (const Expression& slot : b_.slots) {
      all = combine(Expression::Op::add, {std::move(all), slot});
    }
    const auto range =
        bounds(all, [&](const std::string& name) { return program_.range_of(name); });
    if (!range.ok()) return at({1}, fmt::format("the workspace: {}", range.status().message()));
    if (range->max <= kMostWorkspace) return {};
    return at({1}, fmt::format("the workspace may have {} bytes: declare smaller \"max\" of sizes",
                               range->max));
  }

  void constants() {
    b_.constant_offset.assign(program_.tensors.size(), 0);
    b_.constants.file = program_.name + ".constants";
    std::string& bytes = b_.constants.bytes;
    std::map<const Tensor*, std::uint64_t> placed;
    for (std::size_t i = 0; i < program_.tensors.size(); ++i) {
      const auto& data = program_.tensors[i].data;
      if (data == nullptr) continue;
      const auto [place, fresh] = placed.emplace(data.get(), bytes.size());
      b_.constant_offset[i] = place->second;
      if (!fresh) continue;
      bytes.append(reinterpret_cast<const char*>(data->data.data()), data->data.size());
      bytes.resize((bytes.size() + kStorageAlignment - 1) / kStorageAlignment * kStorageAlignment);
    }
    b_.constants.hash = hash_of(bytes);
  }

  const Program& program_;
  Blueprint b_;
  Names names_;
  TemporaryNeeds needs_;
  std::vector<std::pair<std::string, std::size_t>> scratch_;  // places of needs
  std::map<std::pair<std::size_t, std::size_t>, std::size_t> variant_of_;
};

}  // namespace

std::uint64_t hash_of(std::string_view bytes) {
  return wrapped::hash_bytes(bytes.data(), bytes.size());
}

Expected<Blueprint> make_blueprint(const Program& program, const GenerateOptions& options) {
  return Builder(program, options).build();
}

}  // namespace attune::wrap
