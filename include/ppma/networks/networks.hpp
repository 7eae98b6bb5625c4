#pragma once
#include "ppma/core/names_begin.hpp"
// The table of networks of other papers. Its lines are in networks/all.hpp, which the compiled
// library has; a header-only program that wants them includes it, and the others need not read it.

#include <optional>
#include <string>
#include <vector>

#include "ppma/core/limits.hpp"
#include "ppma/core/random.hpp"

namespace ppma::inline PPMA_ABI {

/// Which network, and how large.
struct NetworkConfig {
  std::string name = "custom";
  std::string network{};      // in the table (networks/networks.hpp): "mambaout"
  std::vector<i64> depths{};  // blocks of each stage
  std::vector<i64> dims{};    // channels of each stage
  std::vector<i64> heads{};   // of each stage's attention; none where the network has no heads
  i64 num_classes = 1000;
  double drop_path_rate = 0.2;  // of the last block; rises linearly from 0

  template <class Config, class F>
  static void fields(Config& c, F f) {
    Limits heads_limits = counts();
    heads_limits.or_none = true;
    f("name", c.name);
    f("network", c.network);
    f("depths", c.depths, counts(1000));
    f("dims", c.dims, counts());
    f("heads", c.heads, heads_limits);
    f("num_classes", c.num_classes, counts(1 << 24));
    f("drop_path_rate", c.drop_path_rate, Limits::below(1));
  }
};

/// Error: the first value that makes no network; lists that are not of one length.
PPMA_API void check_config(const NetworkConfig& c);

class Network;  // networks/network.hpp

/// A row of the table.
struct NetworkKind {
  const char* name;    // NetworkConfig::network
  const char* source;  // the paper
  const char* head;    // path of the last linear layer, which tells the classes: "head.fc2"
  std::vector<NetworkConfig> configs;  // the published one first
  Network (*make)(const NetworkConfig& c, Rng& rng);
};

/// All of them; none in a header-only program without networks/all.hpp.
PPMA_API const std::vector<NetworkKind>& networks();

/// A row by name. Error: there is none, and which there are.
PPMA_API const NetworkKind& network_of(const std::string& name);

/// A configuration by its name, "mambaout_tiny"; nothing where there is none.
PPMA_API std::optional<NetworkConfig> network_config_by_name(const std::string& name);

/// The names of all configurations.
PPMA_API std::vector<std::string> network_names();

namespace detail {

PPMA_API std::vector<NetworkKind>& network_table();

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NETWORKS)

#include "ppma/core/closest.hpp"

namespace ppma::inline PPMA_ABI {

void check_config(const NetworkConfig& c) {
  check_fields(c);
  check(c.depths.size() == 4 && c.dims.size() == 4,
        "config: a network has four stages; depths are ", c.depths.size(), ", dims are ",
        c.dims.size());
  check(c.heads.empty() || c.heads.size() == 4, "config: heads are ", c.heads.size(),
        "; they must be four, or none");
}

std::vector<NetworkKind>& detail::network_table() {
  static std::vector<NetworkKind> table;
  return table;
}

const std::vector<NetworkKind>& networks() { return detail::network_table(); }

const NetworkKind& network_of(const std::string& name) {
  std::vector<std::string> known;
  std::string list;
  for (const NetworkKind& kind : networks()) {
    if (name == kind.name) return kind;
    known.emplace_back(kind.name);
    list += (list.empty() ? "" : ", ") + known.back();
  }
  const std::string meant = closest(name, known);
  fail("network: there is no \"", name, "\"; ",
       meant.empty() ? "" : str("did you mean \"", meant, "\"? "), "there are ",
       list.empty() ? "none: a header-only program includes ppma/networks/all.hpp" : list);
}

std::optional<NetworkConfig> network_config_by_name(const std::string& name) {
  for (const NetworkKind& kind : networks())
    for (const NetworkConfig& c : kind.configs)
      if (c.name == name) return c;
  return std::nullopt;
}

std::vector<std::string> network_names() {
  std::vector<std::string> names;
  for (const NetworkKind& kind : networks())
    for (const NetworkConfig& c : kind.configs) names.push_back(c.name);
  return names;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
