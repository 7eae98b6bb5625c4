#pragma once
#include "ppma/core/names_begin.hpp"
// CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their binary versions, from
// https://www.cs.toronto.edu/~kriz/cifar.html:
//   CIFAR-10   data_batch_1.bin ... data_batch_5.bin, test_batch.bin, batches.meta.txt; a record is
//              1 label byte and 3072 bytes: red, green and blue planes of 32 x 32
//   CIFAR-100  train.bin, test.bin, fine_label_names.txt; 2 label bytes, of which the second (fine)
//              one counts

#include <string>

#include "ppma/data/dataset.hpp"

namespace ppma::inline PPMA_ABI {

/// The set in `folder`; CIFAR-100 if it has train.bin, else CIFAR-10 with whichever of its
/// data_batch_*.bin are there.
/// Errors: missing files; a file that is not a whole number of records; a label beyond the named
/// classes.
PPMA_API Dataset cifar(const std::string& folder, Split split = Split::train);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <filesystem>
#include <memory>
#include <vector>

#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline std::vector<std::string> read_names(const std::string& path) {
  std::vector<std::string> names(1);
  for (const u8 byte : read_file(path))
    if (byte == '\n')
      names.emplace_back();
    else if (byte != '\r')
      names.back() += static_cast<char>(byte);
  std::erase(names, "");
  return names;
}

}  // namespace detail

Dataset cifar(const std::string& folder, Split split) {
  namespace fs = std::filesystem;
  const bool hundred = fs::exists(folder + "/train.bin") || fs::exists(folder + "/test.bin");
  std::vector<std::string> paths;
  if (hundred) {
    paths.push_back(folder + (split == Split::train ? "/train.bin" : "/test.bin"));
  } else if (split == Split::train) {
    for (int i = 1; i <= 5; ++i)
      if (const std::string path = str(folder, "/data_batch_", i, ".bin"); fs::exists(path))
        paths.push_back(path);
    check(!paths.empty(), folder,
          ": has no data_batch_1.bin (CIFAR-10) and no train.bin (CIFAR-100)");
  } else {
    paths.push_back(folder + "/test_batch.bin");
  }

  Dataset d;
  d.name = hundred ? "cifar100" : "cifar10";
  d.class_names =
      detail::read_names(folder + (hundred ? "/fine_label_names.txt" : "/batches.meta.txt"));
  const std::size_t labels = hundred ? 2 : 1, record = labels + 3072;
  auto bytes = std::make_shared<std::vector<u8>>();
  for (const std::string& path : paths) {
    const std::vector<u8> file = read_file(path);
    check(!file.empty() && file.size() % record == 0, path, ": ", file.size(),
          " bytes are not a whole number of records of ", record,
          " bytes; the file is damaged or not ", d.name, "'s binary version");
    for (std::size_t at = labels - 1; at < file.size(); at += record)
      check(file[at] < d.class_names.size(), path, ": record ", at / record, " has label ",
            static_cast<int>(file[at]), ", but ", d.class_names.size(), " classes are named");
    bytes->insert(bytes->end(), file.begin(), file.end());
  }
  d.size = static_cast<i64>(bytes->size() / record);
  d.label = [bytes, record, labels](i64 index) {
    return (*bytes)[static_cast<std::size_t>(index) * record + labels - 1];
  };
  d.load = [bytes, record, labels, name = d.name](i64 index) {
    const u8* from = bytes->data() + static_cast<std::size_t>(index) * record + labels;
    Sample s{Tensor::empty({32, 32, 3}, DType::uint8), from[-1], str(name, "/", index)};
    u8* to = s.image.data<u8>();
    for (i64 i = 0; i < 1024; ++i)
      for (i64 c = 0; c < 3; ++c) *to++ = from[c * 1024 + i];
    return s;
  };
  return d;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
