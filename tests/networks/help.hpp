#pragma once
// What the tests of networks share: the small network of a reference file, with weights by formula.

#include <string>
#include <vector>

#include "models/help.hpp"
#include "ppma/models/classifier.hpp"
#include "ppma/networks/all.hpp"

namespace networks_test {

using namespace ppma;
using models_test::as;
using models_test::formula_image;
using models_test::get;
using models_test::reference;

/// A network of the table, narrow and shallow, beside what PyTorch says of it
/// (tests/reference/networks/X_torch.py).
struct Reference {
  Safetensors file;
  NetworkConfig config;
  Shape images;

  explicit Reference(const std::string& name)
      : file(read_safetensors(reference("networks/" + name + ".safetensors"))),
        config(std::get<NetworkConfig>(
            classifier_config_from_text(file.metadata.at("config"), name))) {
    const auto size = nlohmann::json::parse(file.metadata.at("size")).get<std::vector<i64>>();
    images = {2, 3, size.at(0), size.at(1)};
  }
  Network network(DType dtype) const {
    Network n(config);
    models_test::fill_by_formula(n);
    to(n, dtype);
    return n;
  }
  Tensor input(DType dtype) const {
    return as(formula_image(config.network + ".input", images), dtype);
  }
};

}  // namespace networks_test
