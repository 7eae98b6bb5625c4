// ppma, the command-line tool: look at weights, train, evaluate, classify, draw, measure. One
// translation unit; each subcommand is a header beside this file. To add one: write such a header
// with an add_NAME(CLI::App&), include it here, call it below.

#include <iostream>

#include "ablate.hpp"
#include "bench.hpp"
#include "compare.hpp"
#include "data_command.hpp"
#include "evaluate.hpp"
#include "export.hpp"
#include "files.hpp"
#include "lr_find.hpp"
#include "ppma/core/closest.hpp"
#include "ppma/kernels/instruction_set.hpp"
#include "predict.hpp"
#include "run.hpp"
#include "score.hpp"
#include "summary.hpp"
#include "sweep.hpp"
#include "train.hpp"
#include "visualize.hpp"

namespace {

// OpenMP threads that wait for work spin, for milliseconds by default, and take the cores from the
// threads that prepare images and from other programs: on a busy machine training was four times
// slower. How long they spin is read when the runtime is loaded, before main: so the program sets
// it and starts itself once more. Nor do they sleep at once: a network's forward pass has some 300
// parallel regions, and to wake a thread for each took a quarter of a pass on one image.
void wait_briefly([[maybe_unused]] char** argv) {
#if PPMA_OPENMP
  for (const char* chosen : {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"})
    if (std::getenv(chosen) != nullptr) return;
  // g++: turns of the loop, 0.3 ms on an EPYC; clang: milliseconds. Where it fails, threads spin.
  tool::start_again_with(argv, {{"GOMP_SPINCOUNT", "10000"}, {"KMP_BLOCKTIME", "1"}});
#endif
}

// What to do where memory did not suffice, which no estimate foresaw.
constexpr const char* need_less =
    "a smaller network (--model, --config), smaller batches (--batch) or smaller images (--size, "
    "--crop, --longer, --shorter) need less";

// What was printed has arrived, or the exit status says that it has not: a full disk, a closed
// output.
int after_output(int status) {
  std::cout.flush();  // --help and --version
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0 && std::cout.good()) return status;
  std::fprintf(
      stderr,
      "ppma: the output could not be written; is the disk full, or standard output closed?\n");
  return status != 0 ? status : 1;
}

// "did you mean --epochs? ", of the first word that no command or option is.
std::string meant_instead(const CLI::App& app) {
  std::vector<std::string> known;
  const CLI::App* at = &app;
  for (const CLI::App* sub : app.get_subcommands()) at = sub;
  for (const CLI::App* sub : at->get_subcommands([](const CLI::App*) { return true; }))
    known.push_back(sub->get_name());
  for (const CLI::Option* option : at->get_options()) known.push_back(option->get_name());
  for (const std::string& word : at->remaining(true))
    if (const std::string meant = ppma::closest(word, known); !meant.empty())
      return "did you mean " + meant + "? ";
  return "";
}

int run_command(int argc, char** argv) {
  CLI::App app("PPMA: vision transformers with polyline path masked attention");
  app.name("ppma");
  app.require_subcommand(1);
  app.set_version_flag("--version", [] {
    return ppma::str(PPMA_VERSION_MAJOR, ".", PPMA_VERSION_MINOR, ".", PPMA_VERSION_PATCH,
                     ", CPU kernels for ", ppma::instruction_set());
  });
  tool::add_info(app);
  tool::add_summary(app);
  tool::add_data_command(app);
  tool::add_train(app);
  tool::add_ablate(app);
  tool::add_sweep(app);
  tool::add_lr_find(app);
  tool::add_compare(app);
  tool::add_eval(app);
  tool::add_eval_coco(app);
  tool::add_eval_miou(app);
  tool::add_predict(app);
  tool::add_visualize(app);
  tool::add_convert(app);
  tool::add_export(app);
  tool::add_run(app);
  tool::add_bench(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
    std::fprintf(stderr, "ppma: %s (%ssee ppma --help)\n", tool::shown(e.what()).c_str(),
                 meant_instead(app).c_str());
    return 2;
  } catch (const tool::Interrupted& e) {
    return 128 + e.signal;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "ppma: there is not enough memory; %s\n", need_less);
    return 1;
  } catch (const std::exception& e) {
    const std::string message = e.what();
    const bool memory = message.find("memory: ") != std::string::npos;
    std::fprintf(stderr, "ppma: %s%s%s\n", tool::shown(message).c_str(), memory ? "; " : "",
                 memory ? need_less : "");
    return 1;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  tool::program_arguments().assign(argv, argv + argc);
  wait_briefly(argv);
  return after_output(run_command(argc, argv));
}
