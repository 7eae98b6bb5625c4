#pragma once
// ppma info and ppma convert: what is in a weights file, and the other format.

#include <memory>

#include "common.hpp"

namespace tool {

struct InfoOptions {
  std::string file, entry;
  bool json = false;
};

inline void info(const InfoOptions& o) {
  TensorMap tensors;
  std::map<std::string, std::string> metadata;
  if (is_safetensors(o.file) && o.entry.empty()) {  // as it is, with every part of a training checkpoint
    Safetensors file = read_safetensors(o.file);
    tensors = std::move(file.tensors), metadata = std::move(file.metadata);
  } else {
    WeightsFile file = read_weights(o.file, o.entry);
    tensors = std::move(file.tensors), metadata = std::move(file.metadata);
  }
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
    return print_json(j);
  }
  std::size_t width = 4;
  for (const auto& t : tensors) width = std::max(width, t.first.size());
  for (const auto& [name, t] : tensors)
    std::printf("%-*s  %-5s  %s\n", static_cast<int>(width), name.c_str(), to_string(t.dtype()).c_str(),
                t.shape().str().c_str());
  for (const auto& [key, value] : metadata) std::printf("%s: %s\n", key.c_str(), value.c_str());
  std::printf("%zu tensors, %s elements, %.1f MiB\n", tensors.size(), grouped_digits(elements).c_str(), mib(bytes));
}

inline void add_info(CLI::App& app) {
  auto o = std::make_shared<InfoOptions>();
  auto* c = app.add_subcommand("info", "Lists the tensors of a weights file or checkpoint");
  c->add_option("FILE", o->file, ".safetensors, .pth or .pt")->required()->check(CLI::ExistingFile);
  c->add_option("--entry", o->entry,
                "entry of a .pth (such as model_ema), or part of a training checkpoint (model, ema)");
  c->add_flag("--json", o->json, "one JSON object instead of text");
  c->callback([o] { info(*o); });
}

struct ConvertOptions {
  std::string in, out, entry;
};

inline void convert(const ConvertOptions& o) {
  const WeightsFile file = read_weights(o.in, o.entry);
  save_weights(o.out, file.tensors, file.metadata);
}

inline void add_convert(CLI::App& app) {
  auto o = std::make_shared<ConvertOptions>();
  auto* c = app.add_subcommand("convert", "Copies weights into the format that OUT's ending names");
  c->add_option("IN", o->in, ".safetensors, .pth or .pt")->required()->check(CLI::ExistingFile);
  c->add_option("OUT", o->out, ".safetensors, .pth or .pt")->required();
  c->add_option("--entry", o->entry,
                "entry of a .pth (such as model_ema), or part of a training checkpoint (model, ema)");
  c->callback([o] { convert(*o); });
}

}  // namespace tool
