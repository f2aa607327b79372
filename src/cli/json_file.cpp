#include "cli/json_file.h"

#include <fmt/format.h>

#include <fstream>

#include "cli/command.h"

namespace attune::cli {

int write_json(const std::string& path, const nlohmann::json& json) {
  const std::string text = json.dump(1) + "\n";
  if (path == "-") {
    fmt::print("{}", text);
    return kOk;
  }
  std::ofstream file(path);
  file << text;
  file.close();
  if (!file) return refuse({Code::io_error, fmt::format("{}: can't be written", path)});
  return kOk;
}

}  // namespace attune::cli
