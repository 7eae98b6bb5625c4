#pragma once
// ppma info and ppma convert: what is in a weights file, and the other format.

#include <memory>

#include "common.hpp"
#include "ppma/commands/convert.hpp"

namespace tool {

struct InfoOptions {
  std::string file, entry;
  bool json = false;
};

inline void info(const InfoOptions& o) {
  WeightsOfFile file;
  // as it is, with every part of a training checkpoint
  if (is_safetensors(o.file) && o.entry.empty()) {
    Safetensors all = read_safetensors(o.file);
    file.tensors = std::move(all.tensors), file.metadata = std::move(all.metadata);
  } else {
    file = weights_of_file(o.file, {.entry = o.entry});
  }
  const TensorMap& tensors = file.tensors;
  const auto& metadata = file.metadata;
  std::vector<LeftOut> besides = file.left_out;
  besides.insert(besides.end(), file.beside.begin(), file.beside.end());
  i64 elements = 0, bytes = 0;
  for (const auto& t : tensors) elements += t.second.numel(), bytes += t.second.bytes();
  if (o.json) {
    Json j, list = Json::array();
    j["file"] = o.file;
    j["tensors"] = tensors.size();
    j["elements"] = elements;
    j["bytes"] = bytes;
    j["metadata"] = metadata;
    for (const auto& [name, t] : tensors)
      list.push_back({{"name", name},
                      {"shape", std::vector<i64>(t.shape().begin(), t.shape().end())},
                      {"dtype", to_string(t.dtype())}});
    j["entries"] = list;
    Json others = Json::array();
    for (const LeftOut& l : besides)
      others.push_back({{"name", printable(l.name)}, {"is", l.reason}});
    j["left_out"] = others;
    return print_json(j);
  }
  std::size_t width = 4;
  for (const auto& t : tensors) width = std::max(width, printable(t.first, 200).size());
  for (const auto& [name, t] : tensors)
    std::printf("%-*s  %-5s  %s\n", static_cast<int>(width), printable(name, 200).c_str(),
                to_string(t.dtype()).c_str(), t.shape().str().c_str());
  for (const auto& [key, value] : metadata)
    std::printf("%s: %s\n", printable(key).c_str(), printable(value, 100000).c_str());
  if (!besides.empty()) std::printf("not listed above: %s\n", listed(besides, 1000).c_str());
  for (const auto& [name, t] : tensors)
    if (const i64 n = ppma::detail::count_not_finite(t); n > 0)
      std::printf("%s: %s of its values are inf or NaN\n", printable(name, 200).c_str(),
                  grouped_digits(n).c_str());
  std::printf("%zu tensors, %s elements, %.1f MiB\n", tensors.size(),
              grouped_digits(elements).c_str(), mib(bytes));
}

inline void add_info(CLI::App& app) {
  auto o = std::make_shared<InfoOptions>();
  auto* c = app.add_subcommand("info", "Lists the tensors of a weights file or checkpoint");
  c->add_option("FILE", o->file, ".safetensors, .pth or .pt")->required()->check(CLI::ExistingFile);
  c->add_option(
       "--entry", o->entry,
       "entry of a .pth (such as model_ema), or part of a training checkpoint (model, ema)")
      ->check(some_text());
  c->add_flag("--json", o->json, "one JSON object instead of text");
  c->callback([o] { info(*o); });
}

inline void add_convert(CLI::App& app) {
  auto o = std::make_shared<ConvertOptions>();
  auto* c = app.add_subcommand("convert", "Copies weights into the format that OUT's ending names");
  c->add_option("IN", o->in, ".safetensors, .pth or .pt")->required()->check(CLI::ExistingFile);
  c->add_option("OUT", o->out, ".safetensors, .pth or .pt")->required()->check(some_text());
  c->add_option(
       "--entry", o->entry,
       "entry of a .pth (such as model_ema), or part of a training checkpoint (model, ema)")
      ->check(some_text());
  c->add_option("--under", o->under,
                "key of a dict that a .pth then holds the weights under, as published ones have "
                "model; default: the weights alone")
      ->check(some_text());
  c->callback([o] { convert_weights(*o, notes()); });
}

}  // namespace tool
