#pragma once
#include "ppma/core/names_begin.hpp"
// The parts of a training checkpoint: tensors under prefixes, and in its metadata where the
// training was.

#include <charconv>
#include <cstdlib>
#include <string>
#include <system_error>

#include "ppma/io/safetensors.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline void add_prefixed(TensorMap& all, const std::string& prefix, const TensorMap& more) {
  for (const auto& entry : more) all.emplace_back(prefix + entry.first, entry.second);
}

inline TensorMap part_of(const TensorMap& all, const std::string& prefix) {
  TensorMap out;
  for (const auto& entry : all)
    if (entry.first.starts_with(prefix))
      out.emplace_back(entry.first.substr(prefix.size()), entry.second);
  return out;
}

/// An entry that every training checkpoint has in its metadata.
inline const std::string& position_of(const Safetensors& file, const std::string& path,
                                      const char* key) {
  const auto it = file.metadata.find(key);
  check(it != file.metadata.end(), path, ": has no ", key, "; it is not a training checkpoint");
  return it->second;
}

/// The same of one that is a whole number from 0.
inline i64 whole_of(const Safetensors& file, const std::string& path, const char* key) {
  const std::string& text = position_of(file, path, key);
  u64 n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  check(error == std::errc() && end == text.data() + text.size() && n >> 63 == 0, path, ": its ",
        key, " is not a whole number but \"", text,
        "\"; it is not a training checkpoint, or damaged");
  return static_cast<i64>(n);
}

/// The same of any number.
inline double number_of(const Safetensors& file, const std::string& path, const char* key) {
  const std::string& text = position_of(file, path, key);
  char* end = nullptr;
  const double x = std::strtod(text.c_str(), &end);
  check(!text.empty() && *end == 0, path, ": its ", key, " is not a number but \"", text,
        "\"; the file is damaged");
  return x;
}

/// A number as text from which it can be read again, bit for bit.
inline std::string number_text(double x) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, x).ptr};
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
