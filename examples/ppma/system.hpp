#pragma once
// What the tool asks of the system that it runs on: the one header with system calls.

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "ppma/core/error.hpp"
#include "ppma/core/parallel.hpp"

#if defined(_WIN32)
#include <io.h>
#define NOMINMAX
#include <windows.h>
#else
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace tool {

using namespace ppma;

/// Whether somebody looks at the standard output.
inline bool output_is_terminal() {
#if defined(_WIN32)
  return ::_isatty(1) != 0;
#else
  return ::isatty(STDOUT_FILENO) != 0;
#endif
}

/// Starts this program once more, with these variables set: for what is read when it is loaded.
/// Returns where that cannot be done.
inline void start_again_with(
    [[maybe_unused]] char** argv,
    [[maybe_unused]] std::initializer_list<std::pair<const char*, const char*>> variables) {
#if defined(__linux__)
  for (const auto& [name, value] : variables) ::setenv(name, value, 1);
  ::execv("/proc/self/exe", argv);
#endif
}

/// A program that was asked to stop and has: main() ends with 128 + signal.
struct Interrupted {
  int signal;
};

/// While it lives, SIGINT and SIGTERM are noted, once: the next one ends the program at once.
class SignalWatch {
 public:
  SignalWatch() {
    noted() = 0;
    for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, note);
  }
  ~SignalWatch() {
    for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, SIG_DFL);
  }
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

  /// The signal that came; 0: none.
  static int signal() { return noted(); }

 private:
  static volatile std::sig_atomic_t& noted() {
    static volatile std::sig_atomic_t signal = 0;
    return signal;
  }
  static void note(int signal) {
    noted() = signal;
    for (const int other : {SIGINT, SIGTERM}) std::signal(other, SIG_DFL);
  }
};

/// What this program was started with; main() says.
inline std::vector<std::string>& program_arguments() {
  static std::vector<std::string> arguments;
  return arguments;
}

/// One more process of this program: its own arguments and these, whose output goes to a file.
struct Job {
  std::vector<std::string> arguments;
  std::string log;
};

/// Runs all jobs at the same time, which share this process's threads, and calls `meanwhile` every
/// second. Returns which did not end well. SIGINT and SIGTERM they are told, and when all have
/// ended it throws Interrupted. Error: a process cannot be started.
inline std::vector<std::size_t> run_jobs([[maybe_unused]] const std::vector<Job>& jobs,
                                         [[maybe_unused]] const std::function<void()>& meanwhile) {
#if defined(__linux__)
  const int share = threads() / static_cast<int>(jobs.size());
  ::setenv("OMP_NUM_THREADS", std::to_string(share > 1 ? share : 1).c_str(), 1);
  std::vector<pid_t> running(jobs.size(), -1);
  const SignalWatch watch;
  // A terminal's Ctrl-C goes to a whole group, and a second signal ends a process without saving:
  // in groups of their own they hear of it once, from here.
  posix_spawnattr_t own_group;
  ::posix_spawnattr_init(&own_group);
  ::posix_spawnattr_setflags(&own_group, POSIX_SPAWN_SETPGROUP);
  ::posix_spawnattr_setpgroup(&own_group, 0);
  for (std::size_t k = 0; k < jobs.size(); ++k) {
    std::vector<std::string> words = program_arguments();
    words.insert(words.end(), jobs[k].arguments.begin(), jobs[k].arguments.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    ::posix_spawn_file_actions_init(&files);
    ::posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, jobs[k].log.c_str(),
                                       O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ::posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
    const int error =
        ::posix_spawn(&running[k], "/proc/self/exe", &files, &own_group, argv.data(), environ);
    ::posix_spawn_file_actions_destroy(&files);
    if (error != 0) {
      for (std::size_t j = 0; j < k; ++j) ::kill(running[j], SIGTERM);
      fail(jobs[k].log, ": the process that writes it cannot be started (",
           std::string(std::strerror(error)), ")");
    }
  }
  ::posix_spawnattr_destroy(&own_group);
  std::vector<std::size_t> failed;
  int told = 0;
  for (std::size_t left = jobs.size(); left > 0; ::sleep(1), meanwhile()) {
    if (const int signal = SignalWatch::signal(); signal != 0 && told == 0) {
      told = signal;
      for (const pid_t process : running)
        if (process > 0) ::kill(process, signal);
    }
    for (std::size_t k = 0; k < jobs.size(); ++k) {
      int status = 0;
      if (running[k] < 0 || ::waitpid(running[k], &status, WNOHANG) == 0) continue;
      if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) failed.push_back(k);
      running[k] = -1, --left;
    }
  }
  if (told != 0) throw Interrupted{told};
  return failed;
#else
  fail("several processes at a time need Linux; train one after another");
#endif
}

}  // namespace tool
