#pragma once
// ppma compare RUN RUN ...: how do runs differ? (ppma/commands/compare.hpp)

#include <memory>

#include "common.hpp"
#include "ppma/commands/compare.hpp"
#include "ppma/io/file.hpp"

namespace tool {

inline void compare(const std::vector<std::string>& runs, const std::string& out) {
  const RunComparison r = compare_runs(runs);
  if (!r.keys.empty()) std::printf("%s\n", r.differences.text().c_str());
  std::printf("%s", r.table.text().c_str());
  write_file(out, std::string_view(r.page));
  std::printf("\n%s\n", out.c_str());
}

inline void add_compare(CLI::App& app) {
  auto runs = std::make_shared<std::vector<std::string>>();
  auto out = std::make_shared<std::string>("compare.html");
  auto* c = app.add_subcommand(
      "compare", "How runs differ in what they were told and in how they did: a table and a page");
  c->add_option("RUN", *runs, "folders of runs of one task")
      ->required()
      ->check(CLI::ExistingDirectory);
  c->add_option("--out", *out, "the page, HTML")->check(some_text())->capture_default_str();
  c->callback([=] { compare(*runs, *out); });
}

}  // namespace tool
