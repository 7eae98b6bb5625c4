#pragma once
// thread_counts({2, 3}): those numbers of threads that the library under test can have. A build
// without OpenMP, as the sanitized one, has one thread, and would compute the same again.

#include <initializer_list>
#include <vector>

#include "ppma/core/parallel.hpp"

inline std::vector<int> thread_counts(std::initializer_list<int> wanted) {
  const int before = ppma::threads();
  std::vector<int> can;
  for (const int count : wanted) {
    ppma::set_threads(count);
    if (ppma::threads() == count) can.push_back(count);
  }
  ppma::set_threads(before);
  return can;
}
