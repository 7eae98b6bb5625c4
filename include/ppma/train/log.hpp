#pragma once
#include "ppma/core/names_begin.hpp"
// What is known after an epoch, and a classifier's line in log.jsonl: one JSON object with the keys
// of the published logs.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ppma/core/float_bits.hpp"

namespace ppma::inline PPMA_ABI {

/// An epoch of training, whatever the task.
struct EpochReport {
  i64 epoch = 0;  // from 0
  i64 n_parameters = 0;
  double train_lr = 0;    // mean over the epoch's steps
  double last_lr = 0;     // of its last step
  double train_loss = 0;  // mean over the epoch, by the weights of its batches (Loss)
  std::vector<std::pair<std::string, double>> parts;  // of the loss: means as well
  double seconds = 0;                                 // training and evaluation
  double data_seconds = 0;  // of these, those that training waited for batches
  i64 skipped = 0;          // steps, since a loss or gradient was not finite
};

/// The same with what the task's evaluate() gave, where the epoch was evaluated.
template <class Evaluation>
struct EpochRecord : EpochReport {
  std::optional<Evaluation> test;      // of the weights themselves
  std::optional<Evaluation> test_ema;  // of their average, where there is one

  /// The better of the two; -1: there is none.
  double figure() const {
    double best = -1;
    for (const auto& e : {test, test_ema})
      if (e && is_finite(e->figure()) && e->figure() > best) best = e->figure();
    return best;
  }
};

/// How a classifier does on a test set. Accuracies in percent.
struct Evaluation {
  double loss = 0, acc1 = 0, acc5 = 0;
  i64 images = 0;

  /// What the best is chosen by.
  double figure() const { return acc1; }
};

/// A line of a classifier's log.
using ClassifierRecord = EpochRecord<Evaluation>;

/// One line of JSON, without the newline. test_* are left out where nothing was evaluated.
PPMA_API std::string to_json(const ClassifierRecord& r);

/// The records of a log; an empty list if there is no such file. Error: a line that is not a
/// record, with its number.
PPMA_API std::vector<ClassifierRecord> read_log(const std::string& path);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "ppma/core/error.hpp"
#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

std::string to_json(const ClassifierRecord& r) {
  nlohmann::ordered_json j;
  j["epoch"] = r.epoch;
  j["n_parameters"] = r.n_parameters;
  j["train_lr"] = r.train_lr;
  j["train_loss"] = r.train_loss;
  if (r.test) {
    j["test_loss"] = r.test->loss;
    j["test_acc1"] = r.test->acc1;
    j["test_acc5"] = r.test->acc5;
  }
  if (r.test_ema) {
    j["test_ema_loss"] = r.test_ema->loss;
    j["test_ema_acc1"] = r.test_ema->acc1;
    j["test_ema_acc5"] = r.test_ema->acc5;
  }
  if (r.skipped > 0) j["skipped_steps"] = r.skipped;
  j["data_seconds"] = r.data_seconds;
  j["seconds"] = r.seconds;
  return j.dump();
}

std::vector<ClassifierRecord> read_log(const std::string& path) {
  std::vector<ClassifierRecord> records;
  std::error_code unreadable;
  if (!std::filesystem::exists(path, unreadable)) return records;
  const std::vector<u8> bytes = read_file(path);
  const std::string text(bytes.begin(), bytes.end());
  std::size_t begin = 0;
  for (i64 line = 1; begin < text.size(); ++line) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const auto j =
        nlohmann::json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                              text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    check(j.is_object() && j.value("epoch", nlohmann::json()).is_number_integer(), path, ": line ",
          line, " is not a JSON object with an epoch");
    const auto number = [&](const char* key, double& into) {
      const auto it = j.find(key);
      if (it == j.end() || !it->is_number()) return false;
      into = it->get<double>();
      return true;
    };
    ClassifierRecord r;
    r.epoch = j["epoch"].get<i64>();
    double parameters = 0;
    if (number("n_parameters", parameters)) r.n_parameters = static_cast<i64>(parameters);
    number("train_lr", r.train_lr);
    number("train_loss", r.train_loss);
    number("seconds", r.seconds);
    number("data_seconds", r.data_seconds);
    double skipped = 0;
    if (number("skipped_steps", skipped)) r.skipped = static_cast<i64>(skipped);
    const auto test = [&](const std::string& of) -> std::optional<Evaluation> {
      Evaluation e;  // of so many images, which the log does not say
      if (!number((of + "_acc1").c_str(), e.acc1)) return {};
      number((of + "_loss").c_str(), e.loss);
      number((of + "_acc5").c_str(), e.acc5);
      return e;
    };
    r.test = test("test"), r.test_ema = test("test_ema");
    records.push_back(r);
    begin = end + 1;
  }
  return records;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
