#pragma once
#include "ppma/core/names_begin.hpp"
// Which process of a group this one is, from the variables that torchrun or mpirun set.
//
//   torchrun   RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT
//   Open MPI   OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_LOCAL_RANK
//   MPICH      PMI_RANK PMI_SIZE MPI_LOCALRANKID MPI_LOCALNRANKS
//
// Under MPI, MASTER_ADDR (rank 0's host) is this machine and MASTER_PORT 29500 unless they are set.
// Open MPI gives each process cores of its own: how many share a machine is not asked.

#include <optional>
#include <string>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

struct Launch {
  i64 rank = 0, size = 1, local_rank = 0;  // local: on this machine; the number of its GPU
  i64 local_size = 1;                      // that divide this machine's cores among themselves
  std::string host;                        // where rank 0 listens: 127.0.0.1
  i64 port = 29500;
  Launch() : host("127.0.0.1") {}  // nvcc 12.4 fails on a text as a member's default
};

/// Nothing where no such variables are set. Errors: a variable that is no number, or alone; a rank
/// outside of the group.
PPMA_API std::optional<Launch> launch_from_environment();

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_PARALLEL)

#include <cstdlib>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline std::optional<i64> environment_number(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  char* end = nullptr;
  const long long value = std::strtoll(text, &end, 10);
  check(end != text && *end == '\0', "parallel: ", name, " is \"", text, "\", not a number");
  return value;
}

}  // namespace detail

std::optional<Launch> launch_from_environment() {
  struct Names {
    const char *rank, *size, *local, *local_size;
  };
  for (const Names& names :
       {Names{"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
        Names{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", ""},
        Names{"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"}}) {
    const std::optional<i64> rank = detail::environment_number(names.rank),
                             size = detail::environment_number(names.size);
    if (!rank && !size) continue;
    check(rank && size, "parallel: ", rank ? names.rank : names.size, " is set, ",
          rank ? names.size : names.rank, " is not; a launcher sets both");
    check(*size >= 1 && *size <= 4096, "parallel: ", names.size, " is ", *size,
          "; it must be 1 to 4096");
    check(*rank >= 0 && *rank < *size, "parallel: ", names.rank, " is ", *rank, "; with ",
          names.size, " ", *size, " it must be 0 to ", *size - 1);
    Launch launch;
    launch.rank = *rank, launch.size = *size;
    launch.local_rank = detail::environment_number(names.local).value_or(*rank);
    launch.local_size = detail::environment_number(names.local_size).value_or(1);
    if (const char* host = std::getenv("MASTER_ADDR")) launch.host = host;
    launch.port = detail::environment_number("MASTER_PORT").value_or(launch.port);
    const char* taken =
        std::getenv("TORCHELASTIC_USE_AGENT_STORE");  // torchrun itself listens there
    if (taken != nullptr && std::string(taken) == "True") ++launch.port;
    check(launch.port > 0 && launch.port < 65536, "parallel: MASTER_PORT is ", launch.port,
          "; it must be 1 to 65535");
    return launch;
  }
  return std::nullopt;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
