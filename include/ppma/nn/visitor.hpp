#pragma once
#include "ppma/core/names_begin.hpp"
// Walks over modules whose type is not known where the walk is written: what a value that holds any
// mixer or any network hands through. The fields() of a module in it is a template as everywhere;
// of all walks it meets this one.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ppma/nn/layers.hpp"

namespace ppma::inline PPMA_ABI::detail {

// Who walks over the parts of a module, whatever it is. Layers that somebody asks for
// (for_each_layer()) are told apart; other parts are walked through.
class ModuleVisitor {
 public:
  virtual ~ModuleVisitor() = default;
  virtual void parameter(const char* name, Tensor& t) = 0;
  virtual void buffer(const char* name, Tensor& t) = 0;
  virtual void child(const char* name, Linear& l) = 0;
  virtual void child(const char* name, Conv2d& l) = 0;
  virtual void child(const char* name, DepthwiseConv2d& l) = 0;
  virtual void child(const char* name, LayerNorm& l) = 0;
  virtual void child(const char* name, BatchNorm& l) = 0;
  template <class M>
  void child(const char* name, M& module);
  template <class M>
  void child(const char* name, std::optional<M>& module) {
    if (module) child(name, *module);
  }
  template <class M>
  void children(const char* name, std::vector<M>& modules) {
    for (std::size_t i = 0; i < modules.size(); ++i) child(str(name, ".", i).c_str(), modules[i]);
  }
};

// Parts of a part.
class InnerVisitor final : public ModuleVisitor {
 public:
  InnerVisitor(ModuleVisitor& outer, std::string prefix)
      : outer_(outer), prefix_(std::move(prefix)) {}
  void parameter(const char* name, Tensor& t) override { outer_.parameter(full(name).c_str(), t); }
  void buffer(const char* name, Tensor& t) override { outer_.buffer(full(name).c_str(), t); }
  void child(const char* name, Linear& l) override { outer_.child(full(name).c_str(), l); }
  void child(const char* name, Conv2d& l) override { outer_.child(full(name).c_str(), l); }
  void child(const char* name, DepthwiseConv2d& l) override { outer_.child(full(name).c_str(), l); }
  void child(const char* name, LayerNorm& l) override { outer_.child(full(name).c_str(), l); }
  void child(const char* name, BatchNorm& l) override { outer_.child(full(name).c_str(), l); }
  using ModuleVisitor::child;

 private:
  std::string full(const char* name) const { return prefix_ + name; }
  ModuleVisitor& outer_;
  std::string prefix_;
};

template <class M>
void ModuleVisitor::child(const char* name, M& module) {
  InnerVisitor inner(*this, std::string(name) + ".");
  ModuleVisitor& v = inner;
  module.fields(v);
}

// A walk of nn/module.hpp as such a visitor.
template <class V>
class VisitorWalk final : public ModuleVisitor {
 public:
  explicit VisitorWalk(V& v) : v_(v) {}
  void parameter(const char* name, Tensor& t) override { v_.parameter(name, t); }
  void buffer(const char* name, Tensor& t) override { v_.buffer(name, t); }
  void child(const char* name, Linear& l) override { v_.child(name, l); }
  void child(const char* name, Conv2d& l) override { v_.child(name, l); }
  void child(const char* name, DepthwiseConv2d& l) override { v_.child(name, l); }
  void child(const char* name, LayerNorm& l) override { v_.child(name, l); }
  void child(const char* name, BatchNorm& l) override { v_.child(name, l); }

 private:
  V& v_;
};

}  // namespace ppma::inline PPMA_ABI::detail

#include "ppma/core/names_end.hpp"
