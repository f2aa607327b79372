// Numbers as a person says them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace attune::cli {

[[nodiscard]] std::string say_bytes(std::size_t bytes);   // "512 bytes", "1.3 MiB"
[[nodiscard]] std::string say_seconds(double seconds);    // "41.2 us", "3.21 ms", "1 min 12 s"
[[nodiscard]] std::string say_gflops(double gflops);      // "668 GFLOP/s"
[[nodiscard]] std::string say_count(double count);        // "4.2 million"
[[nodiscard]] double median(std::vector<double> values);  // 0 for no values

// Left-aligned columns, two spaces apart; no trailing blanks. The first row is the heading.
[[nodiscard]] std::string table(const std::vector<std::vector<std::string>>& rows);
// The same rows in Markdown.
[[nodiscard]] std::string markdown_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace attune::cli
