#pragma once
// ppma info and ppma convert: what is in a weights file, and the other format.

#include <memory>

#include "common.hpp"
#include "ppma/commands/convert.hpp"
#include "ppma/commands/info.hpp"

namespace tool {

struct InfoCommand : InfoOptions {
  bool json = false;
};

inline void info(const InfoCommand& o) {
  const WeightsInfo file = weights_info(o);
  if (o.json) {
    Json j, list = Json::array();
    j["file"] = o.file;
    j["tensors"] = file.tensors.size();
    j["elements"] = file.elements;
    j["bytes"] = file.bytes;
    j["metadata"] = file.metadata;
    for (const auto& [name, t] : file.tensors)
      list.push_back({{"name", name},
                      {"shape", std::vector<i64>(t.shape().begin(), t.shape().end())},
                      {"dtype", to_string(t.dtype())}});
    j["entries"] = list;
    Json others = Json::array();
    for (const LeftOut& l : file.left_out)
      others.push_back({{"name", printable(l.name)}, {"is", l.reason}});
    j["left_out"] = others;
    return print_json(j);
  }
  std::size_t width = 4;
  for (const auto& t : file.tensors) width = std::max(width, printable(t.first, 200).size());
  for (const auto& [name, t] : file.tensors)
    std::printf("%-*s  %-5s  %s\n", static_cast<int>(width), printable(name, 200).c_str(),
                to_string(t.dtype()).c_str(), t.shape().str().c_str());
  for (const auto& [key, value] : file.metadata)
    std::printf("%s: %s\n", printable(key).c_str(), printable(value, 100000).c_str());
  if (!file.left_out.empty())
    std::printf("not listed above: %s\n", listed(file.left_out, 1000).c_str());
  for (const NotFinite& t : file.not_finite)
    std::printf("%s: %s of its values are inf or NaN\n", printable(t.name, 200).c_str(),
                grouped_digits(t.values).c_str());
  std::printf("%zu tensors, %s elements, %.1f MiB\n", file.tensors.size(),
              grouped_digits(file.elements).c_str(), mib(file.bytes));
}

inline void add_info(CLI::App& app) {
  auto o = std::make_shared<InfoCommand>();
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
