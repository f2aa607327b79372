// What GPU kernels call the features that are compiled into them, and their elements.
#pragma once

#include <attune/spec/portable.h>

#include <array>
#include <attune/tensor.hpp>

namespace attune {

struct FeatureSet {
  bool bias, dropout, general;
  const char* name;
};
inline constexpr std::array kFeatureSets = {
    FeatureSet{false, false, false, "plain"}, FeatureSet{true, false, false, "bias"},
    FeatureSet{false, true, false, "dropout"}, FeatureSet{false, false, true, "general"},
    FeatureSet{true, true, true, "full"}};

// Of a row; empty when it is none of them.
template <typename Spec>
constexpr const char* features_name(const Spec& spec) {
  for (const FeatureSet& set : kFeatureSets) {
    if (set.bias == spec.bias && set.dropout == spec.dropout && set.general == spec.general) {
      return set.name;
    }
  }
  return "";
}

constexpr kernel::Element kernel_element(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return kernel::Element::f16;
    case DType::bf16:
      return kernel::Element::bf16;
    case DType::f8e4m3:
      return kernel::Element::f8e4m3;
    default:
      return kernel::Element::f32;
  }
}

constexpr const char* name_of(kernel::Element element) {
  switch (element) {
    case kernel::Element::f16:
      return "f16";
    case kernel::Element::bf16:
      return "bf16";
    case kernel::Element::f8e4m3:
      return "f8e4m3";
    case kernel::Element::f32:
      break;
  }
  return "f32";
}

}  // namespace attune
