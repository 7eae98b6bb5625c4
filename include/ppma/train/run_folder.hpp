#pragma once
#include "ppma/core/names_begin.hpp"
// The folder of a training run, of which nothing is lost at whatever moment the process dies.
//
//   OUT/last.safetensors   everything that resuming needs, and in its metadata the log so far: the
//                          one truth about the run
//   OUT/log.jsonl          a line for each epoch                      | follow from `last`, and are
//   OUT/log.csv            the same as a table                        | mended when it is resumed
//   OUT/best.safetensors   the weights of the epoch of best figure    |
//   OUT/train.json, config.json   what the run was told
//   OUT/lock               locked while a process trains here; a dead process holds no lock
//
// An epoch is saved in five steps, each of which replaces a file as a whole:
//
//   log.jsonl.next written -> last replaced -> log.jsonl.next becomes log.jsonl -> log.csv, best
//        |                        |                 |                                   replaced
//   died before: the epoch is     died here: the line is taken from log.jsonl.next, log.csv is
//   trained again                 written from all lines, best from the weights in `last`
//
// Within an epoch `last` alone is replaced: the log and best.safetensors stay those of whole
// epochs.
//
// A new run in the place of an old one is written to OUT/.new until it is first saved:
//
//   .new filled -> .new becomes .next -> what only the old run has is removed, files are moved,
//        |              |                `last` last
//   died before: the    died here: when the folder is next opened, the moving is finished
//   old run is there
//
// Files are written aside (io/file.hpp); what a dead process left of that is removed at the start.

#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "ppma/io/file.hpp"
#include "ppma/train/folder_lock.hpp"

namespace ppma::inline PPMA_ABI {

class RunFolder {
 public:
  using Record = nlohmann::ordered_json;  // of an epoch: a line of the log, with "epoch" from 0
  /// What weights files say of themselves.
  using Metadata = std::map<std::string, std::string>;
  /// A folder that is new, one whose run goes, one whose run goes on.
  enum class Start { fresh, overwrite, resume };

  /// What the folder asks of who trains.
  struct Training {
    /// Of an epoch: more is better; -1: there is none.
    std::function<double(const Record&)> figure;
    /// Writes all that resuming needs; its metadata has `more`.
    std::function<void(const std::string& path, const Metadata& more)> write_last;
    /// Writes the weights that the record is about; their metadata has its "epoch".
    std::function<void(const std::string& path, const Record&)> write_best;
  };

  /// Opens the folder where there is one, and finishes what a dead process began. Errors: a run is
  /// there (fresh), there is none (resume), another process trains in it.
  PPMA_API RunFolder(std::string path, Start start);
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;
  PPMA_API ~RunFolder();

  /// Of a new run, when all is there that can be wrong about it: `texts` (train.json, config.json)
  /// are written with the first epoch. Until then an old run stays as it is.
  PPMA_API void begin(std::vector<std::pair<std::string, std::string>> texts, Training training);

  /// Of a run whose weights are resumed and go on at `epoch`, with what its `last` says in its
  /// metadata: brings the log there, and writes best.safetensors again where the process died
  /// before it did. Returns what could not be mended, for people. Error: a line of the log is no
  /// record.
  PPMA_API std::vector<std::string> resume(const Metadata& metadata, i64 epoch, Training training);

  /// Saves an epoch. Returns whether it is the best one so far.
  PPMA_API bool save(const Record& record);

  /// Saves the place within an epoch where the run rests: `last`, and a new run's texts.
  PPMA_API void save_place();

  /// Replaces train.json of a run that is resumed.
  void replace_options(const std::string& text) const { write_file(path("train.json"), text); }

  /// Where a file of the run is now.
  std::string path(const std::string& name) const { return folder() + "/" + name; }
  /// The same of a file in a folder of the run, which is there then.
  PPMA_API std::string file_in(const std::string& folder, const std::string& name) const;
  /// The same of a picture, in the folder of pictures.
  std::string picture(const std::string& name) const { return file_in("pictures", name); }
  /// Where the run is once it was saved.
  const std::string& home() const { return out_; }
  /// Whether it was.
  bool saved() const { return saved_; }
  /// Of the epochs so far.
  const std::vector<Record>& records() const { return records_; }
  /// The best figure so far; -1: nothing had one.
  double best() const { return best_; }  // -1: nothing had a figure
  /// Whether two processes in the folder are told apart; else the file system has no locks.
  bool can_lock() const { return can_lock_; }

 private:
  std::string folder() const { return staged_ ? out_ + "/.new" : out_; }
  PPMA_API bool exists(const std::string& name) const;
  bool holds_run() const {
    return exists("last.safetensors") || exists("best.safetensors") || exists("log.jsonl");
  }
  PPMA_API static void make(const std::string& path);
  PPMA_API static void move(const std::string& from, const std::string& to);

  // The folder is ours, and as if nobody had died in it.
  PPMA_API void open();

  PPMA_API void write_last();
  // The run is in its folder, whatever was there.
  PPMA_API void settle();

  // OUT/.next is a whole run. While its train.json is there, nothing has been moved.
  PPMA_API void take_over();

  PPMA_API static std::vector<std::string> names_in(const std::string& folder);
  template <class Which>
  static void remove_in(const std::string& folder, const Which& which);

  PPMA_API void write_csv() const;
  PPMA_API bool take_if_best(const Record& r);
  PPMA_API std::string mend_best() const;  // what could not be mended; ""

  std::string out_;
  Start start_;
  detail::FolderLock lock_;
  std::vector<std::pair<std::string, std::string>> texts_;  // not yet written
  Training training_;
  std::vector<Record> records_;
  double best_ = -1;
  i64 best_epoch_ = -1, position_ = 0;
  bool can_lock_ = true;
  bool staged_ = false, made_ = false, saved_ = false;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

#include "ppma/io/safetensors.hpp"
#include "ppma/train/csv.hpp"
#include "ppma/train/run_log.hpp"

namespace ppma::inline PPMA_ABI {

RunFolder::RunFolder(std::string path, Start start) : out_(std::move(path)), start_(start) {
  std::error_code absent;
  if (std::filesystem::is_directory(out_, absent)) open();
  if (start_ == Start::resume)
    check(exists("last.safetensors"), out_,
          ": there is no last.safetensors, so nothing to resume; the run ended before it was first"
          " saved: start it anew");
}

RunFolder::~RunFolder() {
  std::error_code ignored;
  if (staged_) std::filesystem::remove_all(out_ + "/.new", ignored);
  if (made_ && !saved_) {  // both only where they are empty
    std::filesystem::remove(out_ + "/pictures", ignored);
    lock_.release();
    std::filesystem::remove(out_, ignored);
  }
}

void RunFolder::begin(std::vector<std::pair<std::string, std::string>> texts, Training training) {
  texts_ = std::move(texts), training_ = std::move(training);
  std::error_code ignored;
  made_ = !std::filesystem::is_directory(out_, ignored);
  make(out_);
  if (!lock_.held()) open();
  staged_ = holds_run();
  std::filesystem::remove(out_ + "/log.jsonl.next", ignored);
  if (staged_) make(out_ + "/.new");
}

std::vector<std::string> RunFolder::resume(const Metadata& metadata, i64 epoch, Training training) {
  training_ = std::move(training), saved_ = true;
  std::vector<std::string> notes;
  std::string before;
  const std::string log = path("log.jsonl"), next = log + ".next";
  std::vector<Record> there;
  if (exists("log.jsonl")) there = detail::read_records(log, before);
  if (const auto told = metadata.find("log"); told != metadata.end()) {
    std::string unused;
    std::vector<Record> timed = there;  // with their seconds, which `last` leaves out
    if (exists("log.jsonl.next"))
      for (Record& r : detail::read_records(next, unused)) timed.push_back(std::move(r));
    for (Record& r :
         detail::parse_records(told->second, path("last.safetensors") + ": log", false)) {
      for (const Record& t : timed)
        if (detail::untimed(t) == r) {
          r = t;
          break;
        }
      records_.push_back(std::move(r));
    }
  } else {  // of a run that began before `last` held the log
    for (const Record& r : there)
      if (detail::epoch_of(r) < epoch) records_.push_back(r);
    if (static_cast<i64>(records_.size()) < epoch)
      notes.push_back(str(log, ": has ", records_.size(), " lines for ", epoch,
                          " epochs; the others are lost, the weights are not"));
  }
  if (const std::string now = detail::record_lines(records_); now != before) write_file(log, now);
  write_csv();
  std::error_code absent;
  std::filesystem::remove(next, absent);
  best_ = -1, best_epoch_ = -1;
  for (const Record& r : records_) take_if_best(r);
  // Within an epoch the weights in `last` are those of no record.
  position_ = metadata.contains("so_far") ? -1 : epoch;
  if (std::string note = mend_best(); !note.empty()) notes.push_back(std::move(note));
  return notes;
}

std::string RunFolder::mend_best() const {
  if (best_epoch_ < 0) return {};
  const std::string best = path("best.safetensors");
  std::string said;  // its epoch
  if (exists("best.safetensors")) {
    try {
      const Metadata metadata = read_safetensors(best).metadata;
      const auto it = metadata.find("epoch");
      said = it == metadata.end() ? "unknown" : it->second;
    } catch (const Error&) {
      said = "damaged";
    }
  }
  if (said == std::to_string(best_epoch_)) return {};
  if (best_epoch_ + 1 == position_ && !records_.empty()) {
    training_.write_best(best, records_.back());
    detail::sync_folder(out_);
    return {};
  }
  if (said == "unknown") return {};  // of a run that began before it was written down
  return str(best,
             said.empty()        ? ": is missing"
             : said == "damaged" ? ": is damaged"
                                 : ": is of another epoch",
             "; the best weights were those of epoch ", best_epoch_ + 1,
             ", and are written again when others are better");
}

bool RunFolder::save(const Record& record) {
  for (const auto& [name, text] : texts_) write_file(path(name), std::string_view(text));
  records_.push_back(record);
  const bool is_best = take_if_best(record);
  position_ = detail::epoch_of(record) + 1;
  const std::string log = path("log.jsonl"), next = log + ".next";
  write_file(next, detail::record_lines(records_));
  write_last();
  move(next, log);
  write_csv();
  if (is_best) training_.write_best(path("best.safetensors"), record);
  detail::sync_folder(folder());
  settle();
  return is_best;
}

void RunFolder::save_place() {
  for (const auto& [name, text] : texts_) write_file(path(name), std::string_view(text));
  write_last();
  settle();
}

void RunFolder::write_last() {
  std::string untimed_log;
  for (const Record& r : records_) untimed_log += detail::untimed(r).dump() + "\n";
  training_.write_last(path("last.safetensors"), {{"log", untimed_log}});
  detail::sync_folder(folder());
}

void RunFolder::settle() {
  texts_.clear();
  saved_ = true;
  if (staged_) {
    move(out_ + "/.new", out_ + "/.next");
    staged_ = false;
    take_over();
  }
}

std::string RunFolder::file_in(const std::string& folder, const std::string& name) const {
  std::error_code error;  // without its parents: a run's folder that vanished is not made again
  std::filesystem::create_directory(path(folder), error);
  check(!error, path(folder), ": cannot be made (", error.message(), "); where is ", out_, "?");
  return path(folder + "/" + name);
}

bool RunFolder::exists(const std::string& name) const {
  std::error_code absent;
  return std::filesystem::exists(path(name), absent);
}

void RunFolder::make(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  check(!error, path, ": cannot be made (", error.message(), "); choose another folder");
}

void RunFolder::move(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0)
    fail(from, ": cannot be moved to ", to, " (", detail::os_reason(), ")");
}

template <class Which>
void RunFolder::remove_in(const std::string& folder, const Which& which) {
  std::error_code ignored;
  for (const std::string& name : names_in(folder))
    if (which(name)) std::filesystem::remove(folder + "/" + name, ignored);
}

void RunFolder::open() {
  can_lock_ = lock_.take(out_);
  std::error_code ignored;
  if (std::filesystem::exists(out_ + "/.next", ignored)) take_over();
  std::filesystem::remove_all(out_ + "/.new", ignored);
  const std::vector<std::string> ours{"train.json",     "config.json",      "log.jsonl",
                                      "log.jsonl.next", "last.safetensors", "best.safetensors",
                                      "curve.png",      "curve.svg",        "confusion.png",
                                      "confusion.svg",  "log.csv",          "report.html"};
  remove_in(out_, [&](const std::string& name) {
    const std::size_t end = name.find(".tmp.");
    if (end == std::string::npos) return false;
    for (const std::string& file : ours)
      if (name.compare(0, end, file) == 0) return true;
    return false;
  });
  for (const char* folder : {"/pictures", "/history"})
    remove_in(out_ + folder,
              [](const std::string& name) { return name.find(".png.tmp.") != std::string::npos; });
  check(start_ != Start::fresh || !holds_run(), out_,
        ": already holds a run; continue it with `resume` ", out_,
        ", start anew with `overwrite`, or choose another `out`");
}

void RunFolder::take_over() {
  const std::string next = out_ + "/.next/";
  namespace fs = std::filesystem;
  if (fs::exists(next + "train.json")) {
    for (const char* name :
         {"best.safetensors", "curve.png", "curve.svg", "confusion.png", "confusion.svg",
          "report.html", "log.csv", "log.jsonl", "log.jsonl.next"})
      if (!fs::exists(next + name)) fs::remove(out_ + "/" + name);
    remove_in(out_,
              [](const std::string& name) { return name.starts_with("events.out.tfevents."); });
    for (const char* folder : {"/pictures", "/history"})
      remove_in(out_ + folder, [](const std::string& name) {
        return (name.starts_with("epoch_") || name == "images.png") && name.ends_with(".png");
      });
  }
  for (const char* name : {"train.json", "config.json", "log.jsonl", "log.csv", "best.safetensors"})
    if (fs::exists(next + name)) move(next + name, out_ + "/" + name);
  if (fs::exists(next + "pictures")) {
    make(out_ + "/pictures");
    for (const std::string& name : names_in(next + "pictures"))
      move(next + "pictures/" + name, out_ + "/pictures/" + name);
  }
  if (fs::exists(next + "last.safetensors"))
    move(next + "last.safetensors", out_ + "/last.safetensors");
  detail::sync_folder(out_);
  fs::remove_all(out_ + "/.next");
}

std::vector<std::string> RunFolder::names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code absent;
  std::filesystem::directory_iterator it(folder, absent);
  for (; !absent && it != std::filesystem::directory_iterator(); it.increment(absent))
    names.push_back(it->path().filename().string());
  return names;
}

void RunFolder::write_csv() const {
  write_file(path("log.csv"), std::string_view(log_as_csv(records_)));
}

bool RunFolder::take_if_best(const Record& r) {
  const double figure = training_.figure(r);
  if (!(figure > best_)) return false;
  best_ = figure, best_epoch_ = detail::epoch_of(r);
  return true;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
