#include "attention.h"

#include <nanobind/stl/string.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

namespace attune::python {
namespace {

// Where each option stands in the tuple that Python hands over; src/attune/_options.py builds it.
enum OptionAt : int {
  kBias,
  kAlibiSlopes,
  kSink,
  kKeyLengths,
  kCuSeqlensQ,
  kCuSeqlensK,
  kPageTable,
  kDropoutState,
  kQScale,
  kKScale,
  kVScale,
  kMaxSeqlenQ,
  kMaxSeqlenK,
  kScale,
  kSoftcap,
  kDropout,
  kDropoutSeed,
  kDropoutOffset,
  kFa2Dropout,
  kCausal,
  kTopLeft,
  kOffset,
  kLeft,
  kRight,
  kDeterministic,
  kHeadsFirst,
  kThreads,
  kStream,
  kOptionCount
};

constexpr std::array<const char*, kOptionCount> kNames = {
    "bias",           "alibi_slopes",  "sink",     "key_lengths", "cu_seqlens_q",  "cu_seqlens_k",
    "page_table",     "dropout_state", "q_scale",  "k_scale",     "v_scale",       "max_seqlen_q",
    "max_seqlen_k",   "scale",         "softcap",  "dropout",     "dropout_seed",  "dropout_offset",
    "dropout_stream", "causal",        "top_left", "offset",      "window's left", "window's right",
    "deterministic",  "layout",        "threads",  "stream"};

template <typename T>
T value(nb::handle options, int index) {
  T number{};
  if (nb::try_cast(at(options, index), number)) return number;
  const nb::str text(at(options, index));
  throw nb::type_error((std::string(kNames[static_cast<std::size_t>(index)]) + " = " +
                        text.c_str() + " is not a number of the kind or size that it takes")
                           .c_str());
}

template <typename T>
std::optional<T> optional(nb::handle options, int index) {
  const nb::handle object = at(options, index);
  return object.is_none() ? std::nullopt : std::optional<T>(value<T>(options, index));
}

class Call {
 public:
  Call(nb::handle q, nb::handle options)
      : arrays_(q, stream_of(options)), heads_first_(value<bool>(options, kHeadsFirst)) {
    AttentionOptions& o = options_;
    o.bias = broadcast_to_4(arrays_.read(at(options, kBias), "bias"));
    o.alibi_slopes = arrays_.read(at(options, kAlibiSlopes), "alibi_slopes");
    o.sink = arrays_.read(at(options, kSink), "sink");
    o.key_lengths = arrays_.read(at(options, kKeyLengths), "key_lengths");
    o.cu_seqlens_q = arrays_.read(at(options, kCuSeqlensQ), "cu_seqlens_q");
    o.cu_seqlens_k = arrays_.read(at(options, kCuSeqlensK), "cu_seqlens_k");
    o.page_table = arrays_.read(at(options, kPageTable), "page_table");
    o.q_scale = arrays_.read(at(options, kQScale), "q_scale");
    o.k_scale = arrays_.read(at(options, kKScale), "k_scale");
    o.v_scale = arrays_.read(at(options, kVScale), "v_scale");
    o.max_seqlen_q = optional<std::int64_t>(options, kMaxSeqlenQ);
    o.max_seqlen_k = optional<std::int64_t>(options, kMaxSeqlenK);
    o.scale = optional<double>(options, kScale);
    o.softcap = value<double>(options, kSoftcap);
    o.dropout = value<double>(options, kDropout);
    if (value<bool>(options, kFa2Dropout)) o.dropout_stream = DropoutStream::fa2;
    o.dropout_seed = value<std::uint64_t>(options, kDropoutSeed);
    o.dropout_offset = value<std::uint64_t>(options, kDropoutOffset);
    o.mask.causal = value<bool>(options, kCausal);
    o.mask.diagonal = value<bool>(options, kTopLeft) ? Diagonal::top_left : Diagonal::bottom_right;
    o.mask.offset = value<std::int64_t>(options, kOffset);
    o.mask.left = value<std::int64_t>(options, kLeft);
    o.mask.right = value<std::int64_t>(options, kRight);
    o.deterministic = value<bool>(options, kDeterministic);
    o.threads = value<int>(options, kThreads);
    if (o.threads == 0 && !arrays_.on_cuda()) o.threads = threads_for(q);
    o.device = arrays_.on_cuda() ? Device::cuda : Device::cpu;
    o.device_index = arrays_.on_cuda() ? arrays_.device_index() : -1;
    o.stream = arrays_.stream();
    take_dropout_state(at(options, kDropoutState));
    // A stream of the caller's own is not the one that the framework's memory is reused on.
    if (arrays_.can_allocate() && arrays_.on_cuda() && stream_of(options) < 0) {
      o.allocate_workspace = [this](std::size_t bytes) {
        const nb::gil_scoped_acquire held;
        return arrays_.workspace(bytes);
      };
    }
  }

  // Without a batch, packed or not.
  [[nodiscard]] bool three_dimensions() const { return arrays_.first().rank == 3; }
  [[nodiscard]] TensorView q() const { return rows_of(arrays_.first()); }
  // k, v, o and gradients.
  TensorView rows(nb::handle object, const char* name, bool writes = false) {
    return rows_of(arrays_.read(object, name, writes));
  }
  // Pages have no heads-first form.
  TensorView keys(nb::handle object, const char* name) {
    if (options_.page_table.empty()) return rows(object, name);
    return arrays_.read(object, name);
  }
  TensorView read(nb::handle object, const char* name, bool writes = false) {
    return arrays_.read(object, name, writes);
  }

  // A result in the place of `like`: given, or allocated now. Its last extent is `columns`.
  Arrays::Allocated rows_like(nb::handle given, const TensorView& like, std::int64_t columns,
                              bool three_dimensions, bool heads_first, const char* name) {
    if (!given.is_none()) return {nb::borrow<nb::object>(given), rows(given, name, true)};
    const DType dtype = like.dtype == DType::f8e4m3 ? DType::bf16 : like.dtype;
    if (!three_dimensions) {
      return allocate(dtype, {like.shape[0], like.shape[1], like.shape[2], columns}, heads_first,
                      name);
    }
    Arrays::Allocated made = allocate(dtype, {like.shape[1], like.shape[2], columns}, false, name);
    made.view = with_batch(made.view);
    return made;
  }
  Arrays::Allocated allocate(DType dtype, const std::vector<std::int64_t>& shape, bool exchanged,
                             const char* name) {
    if (!arrays_.can_allocate()) {
      throw nb::value_error(
          (std::string(name) + " is missing: arrays of this type can't be allocated here").c_str());
    }
    return arrays_.allocate(dtype, shape, exchanged);
  }

  // The LSE of queries q, in a place that is given, or allocated now.
  Arrays::Allocated lse(nb::handle given, const TensorView& q) {
    if (PyBool_Check(given.ptr()) == 0)
      return {nb::borrow<nb::object>(given), read(given, "lse", true)};
    if (options_.cu_seqlens_q.empty()) {
      return allocate(DType::f32, {q.shape[0], q.shape[2], q.shape[1]}, false, "lse");
    }
    return allocate(DType::f32, {q.shape[2], q.shape[1]}, false, "lse");
  }

  [[nodiscard]] bool heads_first() const { return heads_first_; }
  AttentionOptions& options() { return options_; }

 private:
  [[nodiscard]] TensorView rows_of(const TensorView& view) const {
    return heads_first_ ? exchange_axes(with_batch(view)) : with_batch(view);
  }

  static std::int64_t stream_of(nb::handle options) {
    if (PyTuple_Check(options.ptr()) == 0 || PyTuple_Size(options.ptr()) != kOptionCount) {
      throw nb::type_error("the options of a call are a tuple of 28");
    }
    return value<std::int64_t>(options, kStream);
  }

  // GPUs read (seed, offset) when they run; here they are at hand.
  void take_dropout_state(nb::handle object) {
    const TensorView state = arrays_.read(object, "dropout_state");
    if (state.empty()) return;
    if (arrays_.on_cuda()) {
      options_.dropout_state = state;
      return;
    }
    if (state.dtype != DType::i64 || state.rank != 1 || state.shape[0] != 2) {
      throw nb::value_error(
          ("dropout_state is " + to_string(state) + "; it takes i64[2], (seed, offset)").c_str());
    }
    const auto* words = static_cast<const std::int64_t*>(state.data);
    options_.dropout_seed = static_cast<std::uint64_t>(words[0]);
    options_.dropout_offset = static_cast<std::uint64_t>(words[state.strides[0]]);
  }

  Arrays arrays_;
  bool heads_first_;
  AttentionOptions options_;
};

// Shapes are read from it before Attune looks at them.
void check_rank(const TensorView& view, const char* name) {
  if (view.rank == 4) return;
  throw nb::value_error((std::string(name) + " has " + std::to_string(view.rank) +
                         " dimensions; it takes 4, or 3 when packed")
                            .c_str());
}

}  // namespace

nb::object forward(nb::handle q_array, nb::handle k_array, nb::handle v_array, nb::handle out,
                   nb::handle lse, nb::handle options) {
  Call call(q_array, options);
  const bool three = call.three_dimensions();
  const TensorView q = call.q();
  const TensorView k = call.keys(k_array, "k");
  const TensorView v = call.keys(v_array, "v");
  check_rank(q, "q");
  check_rank(v, "v");
  const Arrays::Allocated o = call.rows_like(out, q, v.shape[3], three, call.heads_first(), "out");
  const bool wants_lse = lse.ptr() != Py_False;
  Arrays::Allocated written;
  if (wants_lse) {
    written = call.lse(lse, q);
    call.options().lse = written.view;
  }
  Status status;
  {
    const nb::gil_scoped_release released;
    status = attention(q, k, v, o.view, call.options());
  }
  raise_unless_ok(status);
  if (!wants_lse) return o.object;
  return nb::make_tuple(o.object, written.object);
}

namespace {

// grads: (grad_q, grad_k, grad_v, grad_bias, grad_alibi_slopes, grad_sink), each an array to write,
// True to have it allocated, or False. The first three are always computed.
nb::object backward(nb::handle grad_o, nb::handle grad_lse, nb::handle q_array, nb::handle k_array,
                    nb::handle v_array, nb::handle o_array, nb::handle lse, nb::tuple grads,
                    nb::handle options) {
  Call call(q_array, options);
  const bool three = call.three_dimensions();
  BackwardTensors t;
  t.q = call.q();
  t.k = call.keys(k_array, "k");
  t.v = call.keys(v_array, "v");
  t.o = call.rows(o_array, "o");
  t.grad_o = call.rows(grad_o, "grad_o");
  t.grad_lse = call.read(grad_lse, "grad_lse");
  call.options().lse = call.read(lse, "lse");
  check_rank(t.q, "q");
  check_rank(t.k, "k");
  check_rank(t.v, "v");
  const bool k_three = call.read(k_array, "k").rank == 3;
  const bool first = call.heads_first();
  nb::list results;

  const auto rows = [&](int index, const TensorView& like, bool is_three, const char* name) {
    nb::handle place = grads[static_cast<std::size_t>(index)];
    if (PyBool_Check(place.ptr()) != 0) place = nb::handle(Py_None);
    const Arrays::Allocated made =
        call.rows_like(place, like, like.shape[3], is_three, first, name);
    results.append(made.object);
    return made.view;
  };
  const auto small = [&](int index, int option, DType dtype, const char* name) -> TensorView {
    const nb::handle place = grads[static_cast<std::size_t>(index)];
    if (place.ptr() == Py_False) {
      results.append(nb::none());
      return {};
    }
    if (PyBool_Check(place.ptr()) == 0) {
      results.append(place);
      return call.read(place, name, true);
    }
    const TensorView of = call.read(at(options, option), name);
    const Arrays::Allocated made =
        call.allocate(option == kBias ? of.dtype : dtype,
                      {of.shape.begin(), of.shape.begin() + of.rank}, false, name);
    results.append(made.object);
    return made.view;
  };
  t.grad_q = rows(0, t.q, three, "grad_q");
  t.grad_k = rows(1, t.k, k_three, "grad_k");
  t.grad_v = rows(2, t.v, k_three, "grad_v");
  t.grad_bias = broadcast_to_4(small(3, kBias, DType::f32, "grad_bias"));
  t.grad_alibi_slopes = small(4, kAlibiSlopes, DType::f32, "grad_alibi_slopes");
  t.grad_sink = small(5, kSink, DType::f32, "grad_sink");
  Status status;
  {
    const nb::gil_scoped_release released;
    status = attention_backward(t, call.options());
  }
  raise_unless_ok(status);
  return nb::tuple(results);
}

// The problem of a call, as text. backward: None, or (lse, bias, sink, alibi_slopes), the gradients
// beside those of q, k and v.
std::string problem(nb::handle q_array, nb::handle k_array, nb::handle v_array, nb::handle out,
                    bool lse, nb::handle backward, nb::handle options) {
  Call call(q_array, options);
  const TensorView q = call.q();
  const TensorView k = call.keys(k_array, "k");
  const TensorView v = call.keys(v_array, "v");
  const TensorView o = call.rows(out, "out");
  // Only that there is one counts.
  if (lse) call.options().lse = TensorView::contiguous(nullptr, DType::f32, {1});
  std::optional<WantedGradients> wanted;
  if (!backward.is_none()) {
    wanted = WantedGradients{nb::cast<bool>(at(backward, 0)), nb::cast<bool>(at(backward, 1)),
                             nb::cast<bool>(at(backward, 2)), nb::cast<bool>(at(backward, 3))};
  }
  const Expected<Problem> found = problem_of(q, k, v, o, call.options(), wanted);
  raise_unless_ok(found.status());
  return print(*found);
}

}  // namespace

void bind_attention(nb::module_& module) {
  module.def("forward", &forward, nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("out").none(),
             nb::arg("lse"), nb::arg("options"));
  module.def("backward", &backward, nb::arg("grad_o"), nb::arg("grad_lse").none(), nb::arg("q"),
             nb::arg("k"), nb::arg("v"), nb::arg("o"), nb::arg("lse"), nb::arg("grads"),
             nb::arg("options"));
  module.def("problem", &problem, nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("out").none(),
             nb::arg("lse"), nb::arg("backward").none(), nb::arg("options"));
  module.def(
      "can_allocate",
      [](nb::handle array) { return nb::hasattr(array.type(), "__dlpack_c_exchange_api__"); },
      "Whether results are allocated by the array's own framework, through DLPack");
}

}  // namespace attune::python
