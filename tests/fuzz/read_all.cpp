// For tests/reference/compare_torch_load.py: opens each .pth file named on standard input, reads
// every tensor and storage in it as torch.load does, and prints a line: "ok", or why not.
//
//   g++ -std=c++20 -O1 -Iinclude tests/fuzz/read_all.cpp -o read_all

#include <iostream>
#include <set>
#include <string>
#include <vector>

#include "ppma/io/checkpoint.hpp"

namespace {

using namespace ppma;

// Everything reachable, each container once; "(foreign: NAME)" if an object is opaque to us.
std::string read_all(const std::string& path) {
  const PthFile file = read_pth(path);
  std::vector<PickleValue> todo{file.root()};
  std::set<std::string> foreign;
  i64 tensors = 0;
  for (int n = 0; n < 100000 && !todo.empty(); ++n) {
    const PickleValue v = todo.back();
    todo.pop_back();
    if (file.is_tensor(v)) {
      file.tensor(v);
      ++tensors;
      continue;
    }
    switch (v.kind()) {
      case PickleKind::list:
      case PickleKind::tuple:
      case PickleKind::set:
        for (std::size_t i = 0; i < v.size(); ++i) todo.push_back(v.item(i));
        break;
      case PickleKind::dict:
        for (std::size_t i = 0; i < v.size(); ++i) {
          todo.push_back(v.key(i));
          todo.push_back(v.value(i));
        }
        break;
      case PickleKind::global:
        foreign.insert(v.class_name());
        break;
      case PickleKind::object:
        if (const std::string reason = file.unread_reason(v); !reason.empty())
          fail(path, ": ", reason);
        foreign.insert(v.class_name());
        for (const PickleValue& part : {v.args(), v.state(), v.list_items(), v.dict_items()})
          todo.push_back(part);
        break;
      case PickleKind::persistent:
        foreign.insert("(a storage alone)");
        break;
      default:
        break;
    }
  }
  std::string names;
  for (const std::string& f : foreign) names += " " + printable(f);
  return str("ok ", tensors, names);
}

}  // namespace

int main() {
  for (std::string path; std::getline(std::cin, path);) {
    try {
      std::cout << read_all(path) << '\n';
    } catch (const ppma::Error& e) {
      std::cout << "refused " << e.what() << '\n';
    }
  }
}
