#pragma once
// ppma export: a network as a file for other runtimes.

#include <memory>

#include "dense_network.hpp"
#include "ppma/commands/export.hpp"

namespace tool {

inline void add_export(CLI::App& app) {
  auto o = std::make_shared<ExportOptions>();
  auto format = std::make_shared<std::string>("onnx");
  auto* c = app.add_subcommand("export", "Writes a network as a file for other runtimes");
  add_network(*c, o->network);
  c->get_option("--model")->description(c->get_option("--model")->get_description() +
                                        " [ppma_tiny]");
  add_task(*c, o->task, o->network, "classify, segment or detect (one image at a time). ");
  c->add_option("--format", *format, "of the file: onnx, of opset 18")
      ->check(CLI::IsMember({"onnx"}))
      ->capture_default_str();
  c->add_option("--size", o->size,
                "height and width of the images, one number where they are equal; default: what "
                "the weights say (segment, detect: their shorter side), else 224 or 512")
      ->check(in_range(least_size, most_size))
      ->expected(1, 2);
  c->add_option("--out", o->out, "the file to write")->required()->check(some_text());
  c->callback([o, format, c] {  // there is one format
    refuse_others(*c, o->task);
    const ExportedNetwork e = export_network(*o, notes());
    std::printf("%s: %s, %s; ONNX, opset %lld, %.1f MiB\n", shown_name(e.path).c_str(),
                shown(e.name).c_str(), e.ends.c_str(), static_cast<long long>(e.opset),
                mib(e.bytes));
  });
}

}  // namespace tool
