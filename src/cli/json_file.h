// JSON where the command line wants it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace attune::cli {

// To the file, or to standard output for "-". Returns the exit code.
[[nodiscard]] int write_json(const std::string& path, const nlohmann::json& json);

}  // namespace attune::cli
