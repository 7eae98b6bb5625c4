#pragma once
// --recipe of `train`: what is given beside one counts more.

#include <string>

#include "options.hpp"
#include "ppma/commands/recipes.hpp"

namespace tool {

/// "published: ImageNet-1K ...; small: ...".
inline std::string recipes_help() {
  std::string s;
  for (const Recipe& r : recipes())
    s += str(s.empty() ? "" : "; ", r.name, ": ", with_options(r.about));
  return s;
}

}  // namespace tool
