// The house stands: no header includes a rung above its own, no ring of includes, nothing heavy
// below io/, and every header compiles alone (tests/compile_alone.sh, a test of its own).

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "catch.hpp"

namespace {

namespace fs = std::filesystem;

const std::map<std::string, int> rungs{
    {"core", 0},  {"kernels", 1}, {"tensor", 2},   {"parallel", 3}, {"ops", 4},
    {"io", 4},    {"metrics", 4}, {"polyline", 5}, {"data", 5},     {"nn", 6},
    {"optim", 7}, {"mixers", 7},  {"networks", 8}, {"models", 9},   {"heads", 10},
    {"vis", 10},  {"train", 11},  {"commands", 12}};

struct Header {
  std::string folder;
  std::vector<std::string> ours, system;  // what it includes
};

// "polyline/mask.hpp" -> what stands in it.
std::map<std::string, Header> read_headers() {
  const fs::path root = fs::path(PPMA_TEST_SOURCE_DIR) / "include" / "ppma";
  std::map<std::string, Header> headers;
  for (const auto& file : fs::recursive_directory_iterator(root)) {
    if (!file.is_regular_file()) continue;
    const std::string name = fs::relative(file.path(), root).generic_string();
    Header h;
    h.folder = name.find('/') == std::string::npos ? "" : name.substr(0, name.find('/'));
    std::ifstream in(file.path());
    for (std::string line; std::getline(in, line);) {
      if (line.rfind("#include \"ppma/", 0) == 0)
        h.ours.push_back(line.substr(15, line.find('"', 15) - 15));
      if (line.rfind("#include <", 0) == 0)
        h.system.push_back(line.substr(10, line.find('>') - 10));
    }
    headers[name] = h;
  }
  return headers;
}

}  // namespace

TEST_CASE("no header looks up the ladder", "[ladder]") {
  const std::map<std::string, Header> headers = read_headers();
  REQUIRE(headers.size() > 40);
  for (const auto& [name, header] : headers) {
    if (header.folder.empty()) continue;  // ppma.hpp, on top of all
    INFO(name);
    REQUIRE(rungs.count(header.folder) == 1);  // a new folder needs a rung
    for (const std::string& included : header.ours) {
      INFO("includes " << included);
      REQUIRE(headers.count(included) == 1);
      const std::string& other = headers.at(included).folder;
      REQUIRE(rungs.count(other) == 1);
      CHECK((other == header.folder || rungs.at(other) < rungs.at(header.folder)));
    }
  }
}

TEST_CASE("no ring of includes", "[ladder]") {
  const std::map<std::string, Header> headers = read_headers();
  std::set<std::string> done, open;
  std::function<void(const std::string&)> walk = [&](const std::string& name) {
    INFO(name);
    REQUIRE(open.count(name) == 0);
    if (done.count(name) != 0) return;
    open.insert(name);
    for (const std::string& included : headers.at(name).ours) walk(included);
    open.erase(name);
    done.insert(name);
  };
  for (const auto& entry : headers) walk(entry.first);
}

TEST_CASE("the paper can be read in one sitting, in the order that the README names", "[ladder]") {
  const fs::path root(PPMA_TEST_SOURCE_DIR);
  std::ifstream readme(root / "README.md");
  const std::string text{std::istreambuf_iterator<char>(readme), {}};
  std::string::size_type last = text.find("## The paper in one sitting");
  REQUIRE(last != std::string::npos);
  for (const std::string name : {"types", "path", "decay", "line_mask", "mask", "attention",
                                 "fused", "linear", "structured", "volume", "masks", "check"}) {
    INFO(name);
    const auto at = text.find("(include/ppma/polyline/" + name + ".hpp)", last);
    REQUIRE(at != std::string::npos);
    last = at;
    std::ifstream in(root / "include" / "ppma" / "polyline" / (name + ".hpp"));
    REQUIRE(in);
    int lines = 0;
    for (std::string line; std::getline(in, line);) ++lines;
    CHECK(lines <= 180);
  }
}

TEST_CASE("headers below io/ stay light", "[ladder]") {
  const std::set<std::string> heavy{"iostream", "regex", "ranges", "filesystem",
                                    "nlohmann/json.hpp"};
  for (const auto& [name, header] : read_headers())
    for (const std::string& system : header.system) {
      INFO(name << " includes <" << system << ">");
      CHECK((system != "iostream" && system != "regex" && system != "ranges"));
      if (!header.folder.empty() && (rungs.at(header.folder) < 4 || header.folder == "ops" ||
                                     header.folder == "polyline" || header.folder == "nn"))
        CHECK(heavy.count(system) == 0);
      // Two seconds in each file that sees it: in the products' definitions, and where users ask.
      if (system.find("Eigen") != std::string::npos)
        CHECK((name == "kernels/cpu/gemm_eigen.hpp" || name == "eigen.hpp"));
    }
}
