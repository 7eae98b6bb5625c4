#pragma once
#include "ppma/core/names_begin.hpp"
// The log of a training run as text: a line of JSON for each epoch, an object with "epoch" from 0.

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// Which epoch a record is of.
PPMA_API i64 epoch_of(const nlohmann::ordered_json& record);
/// The record without how long it took, which is another time each time.
PPMA_API nlohmann::ordered_json untimed(nlohmann::ordered_json record);
/// A line for each.
PPMA_API std::string record_lines(const std::vector<nlohmann::ordered_json>& records);
/// The records of lines; `where` is what errors call them. A last line without its end is one that
/// a full disk or a crash cut off, where it may be cut. Error: a line is no record.
PPMA_API std::vector<nlohmann::ordered_json> parse_records(const std::string& text,
                                                           const std::string& where,
                                                           bool may_be_cut);
/// Those of a file, which may be cut, and its text.
PPMA_API std::vector<nlohmann::ordered_json> read_records(const std::string& path,
                                                          std::string& text);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include <nlohmann/json.hpp>

#include "ppma/core/error.hpp"
#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

i64 detail::epoch_of(const nlohmann::ordered_json& record) { return record.at("epoch").get<i64>(); }

nlohmann::ordered_json detail::untimed(nlohmann::ordered_json record) {
  record.erase("seconds"), record.erase("data_seconds");
  return record;
}

std::string detail::record_lines(const std::vector<nlohmann::ordered_json>& records) {
  std::string lines;
  for (const nlohmann::ordered_json& r : records) lines += r.dump() + "\n";
  return lines;
}

std::vector<nlohmann::ordered_json> detail::parse_records(const std::string& text,
                                                          const std::string& where,
                                                          bool may_be_cut) {
  std::vector<nlohmann::ordered_json> records;
  std::size_t begin = 0;
  for (i64 line = 1; begin < text.size(); ++line) {
    const std::size_t end = text.find('\n', begin);
    nlohmann::ordered_json r =
        nlohmann::ordered_json::parse(text.substr(begin, end - begin), nullptr, false);
    if (r.is_discarded() && end == std::string::npos && may_be_cut) break;
    const std::string at = str(where, ": line ", line);
    check(!r.is_discarded(), at, " is not JSON; remove the line to resume the run");
    check(r.is_object() && r.contains("epoch"), at,
          " is not a JSON object with an \"epoch\"; remove it");
    check(r["epoch"].is_number_integer(), at, ": \"epoch\" must be a whole number, not ",
          r["epoch"].dump(), "; remove the line");
    records.push_back(std::move(r));
    if (end == std::string::npos) break;
    begin = end + 1;
  }
  return records;
}

std::vector<nlohmann::ordered_json> detail::read_records(const std::string& path,
                                                         std::string& text) {
  const std::vector<u8> bytes = read_file(path);
  text.assign(bytes.begin(), bytes.end());
  return parse_records(text, path, true);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
