#pragma once
#include "ppma/core/names_begin.hpp"
// The commands of the tool `ppma` as functions: each takes a struct of options, does the whole of a
// command's work and returns what there is to say of it; the tool adds a command line and prints.
//
//   ClassifierTraining o;                 // the defaults are the tool's
//   o.data.kind = "shapes", o.out = "runs/x";
//   const TrainedClassifier r = train_classifier(o);
//
// What happens meanwhile an observer hears, if one is given. Errors name an option as its field in
// backticks, `data_dir`, as the options' fields() and a run's train.json have it; the tool, whose
// options are these fields with dashes, shows `data_dir`.

#include <string>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

/// Hears of a command's work. What is thrown in it ends the command.
struct Observer {
  virtual ~Observer() = default;
  /// Something worth knowing that changes no result, as what a set of images leaves out.
  virtual void note(const std::string& /*text*/) {}
};

/// An observer that does nothing of its own, for who does not watch.
template <class Watch = Observer>
Watch& nobody() {
  static Watch none;
  return none;
}

namespace detail {

template <class... Parts>
void note(Observer& observer, const Parts&... parts) {
  observer.note(str(parts...));
}

/// What a set of images leaves out, if anything.
inline void note_left_out(Observer& observer, const std::string& set, const std::string& what) {
  if (!what.empty()) note(observer, set, ": left out: ", what);
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
