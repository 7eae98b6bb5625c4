#pragma once
// ppma run: a network on given tensors; of a classifier with --train one training-mode step with
// all gradients.

#include <memory>

#include "dense_network.hpp"
#include "ppma/commands/run_network.hpp"

namespace tool {

inline void add_run(CLI::App& app) {
  auto o = std::make_shared<RunOptions>();
  auto* c = app.add_subcommand(
      "run", "Runs a network on the tensors of a file, optionally one training step");
  add_network(*c, o->network);
  add_task(*c, o->task, o->network, "classify, segment or detect. ");
  c->add_option("--input", o->input,
                "safetensors with `input` (B,3,H,W), and `target` (B) for --train; detect: also "
                "map0 to map3 (1,C,H,W) of a backbone")
      ->required()
      ->check(CLI::ExistingFile);
  c->add_option("--output", o->output,
                "safetensors to write: patch_embed, stage0 to stage3 (B,H,W,C), logits; segment: "
                "logits (B,H,W,K); detect: boxes, scores, labels")
      ->required()
      ->check(some_text());
  c->add_flag("--train", o->train, "training mode; adds loss, grad.input, grad.NAME, after.BUFFER");
  add_compute(*c, o->compute);
  add_threads(*c);
  c->callback([o, c] {
    refuse_others(*c, o->task);
    run_network(*o, notes());
  });
}

}  // namespace tool
