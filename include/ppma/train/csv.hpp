#pragma once
#include "ppma/core/names_begin.hpp"
// The log of a run as a table that spreadsheets and data frames read: RFC 4180, lines end in \n.

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

/// A line of names, then one for each record, an object. What a list or an object holds has columns
/// of its own, IoU[0] or losses.mask; a cell of what a record lacks, or that is null, is empty.
/// Columns are in the order of the records' keys. "" without records.
PPMA_API std::string log_as_csv(const std::vector<nlohmann::ordered_json>& records);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

namespace ppma::inline PPMA_ABI {

namespace detail {

using Cells = std::vector<std::pair<std::string, std::string>>;  // column, what is in it

inline std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

inline void put_cells(const nlohmann::ordered_json& value, const std::string& column, Cells& to) {
  if (value.is_object())
    for (const auto& [key, part] : value.items())
      put_cells(part, column.empty() ? key : column + "." + key, to);
  else if (value.is_array())
    for (std::size_t i = 0; i < value.size(); ++i)
      put_cells(value[i], column + "[" + std::to_string(i) + "]", to);
  else
    to.emplace_back(column, value.dump() == "null" ? ""  // a number that is not finite, too
                            : value.is_string()    ? value.get<std::string>()
                                                   : value.dump());
}

}  // namespace detail

std::string log_as_csv(const std::vector<nlohmann::ordered_json>& records) {
  std::vector<detail::Cells> rows;
  std::vector<std::string> columns;
  for (const nlohmann::ordered_json& r : records) {
    detail::put_cells(r, "", rows.emplace_back());
    // One that is new stands behind that which it follows in its record.
    auto at = columns.begin();
    for (const auto& [name, text] : rows.back()) {
      const auto known = std::find(columns.begin(), columns.end(), name);
      at = (known != columns.end() ? known : columns.insert(at, name)) + 1;
    }
  }
  std::string csv;
  for (std::size_t c = 0; c < columns.size(); ++c)
    csv += (c > 0 ? "," : "") + detail::csv_cell(columns[c]);
  if (!columns.empty()) csv += "\n";
  for (const detail::Cells& row : rows) {
    const std::map<std::string, std::string> cells(row.begin(), row.end());
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const auto it = cells.find(columns[c]);
      csv +=
          (c > 0 ? "," : "") + (it == cells.end() ? std::string() : detail::csv_cell(it->second));
    }
    csv += "\n";
  }
  return csv;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
