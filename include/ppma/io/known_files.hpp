#pragma once
#include "ppma/core/names_begin.hpp"
// Files that people hand over in place of weights, told apart by how they begin: an error that says
// what a file is helps more than one that says what it is not.

#include <string>
#include <string_view>

#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// The end of every message about damage.
inline constexpr const char* copy_again = "; copy or download the file again";

PPMA_API std::string_view as_text(Bytes bytes);

// What a file is that is neither safetensors nor torch.save's zip archive, and the remedy; "" if
// its first bytes do not say.
PPMA_API std::string known_file(Bytes file);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <cstring>

#include "ppma/core/error.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Whether a text begins with a word in lower case, whatever its own case is.
inline bool begins_with_word(std::string_view text, std::string_view word) {
  return text.size() >= word.size() &&
         std::equal(word.begin(), word.end(), text.begin(), [](char w, char t) {
           return w == (t >= 'A' && t <= 'Z' ? static_cast<char>(t - 'A' + 'a') : t);
         });
}

// What a text is, and the remedy; "" for bytes that are no text.
inline std::string known_text(Bytes file) {
  std::string_view text = as_text(file.first(std::min<std::size_t>(file.size(), 4096)));
  const bool is_all = text.size() == file.size();
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  while (!text.empty() && std::strchr(" \t\r\n", text.front()) != nullptr && text.front() != '\0')
    text.remove_prefix(1);
  if (text.starts_with("version https://git-lfs.github.com/"))
    return "a Git LFS pointer, not the file itself: fetch it with git lfs pull";
  for (const char* tag : {"<!doctype html", "<html", "<head", "<body"})
    if (begins_with_word(text, tag))
      return "an HTML page, not weights: the download gave a web page (a login, a preview, an "
             "error); "
             "download the file itself";
  if (text.starts_with("<?xml") || text.starts_with("<Error>"))
    return "an XML text, not weights: often a server's error; open it to read why, and download "
           "the "
           "file again";
  if (text.starts_with("{") || text.starts_with("[")) {
    const std::string_view all = as_text(file.first(std::min<std::size_t>(file.size(), 1 << 20)));
    if (all.find("\"weight_map\"") != std::string_view::npos)
      return "an index of weights that are spread over several files (weight_map); give the files "
             "that "
             "it names, one at a time";
    return "a JSON text, not weights; give the .safetensors or .pth file itself";
  }
  const auto odd = [](char c) {
    const u8 b = static_cast<u8>(c);
    return (b < 0x20 && c != '\n' && c != '\r' && c != '\t') || b == 0x7f;
  };
  if (text.empty() || std::any_of(text.begin(), text.end(), odd)) return "";
  std::size_t whole = text.size();  // the first 4096 bytes may end within a character
  for (int i = 0; i < 3 && !is_all && !is_utf8(text.substr(0, whole)); ++i) --whole;
  if (!is_utf8(text.substr(0, whole))) return "";
  return str("a text that begins with \"", printable(text, 40),
             "\"; give the file with the weights");
}

std::string known_file(Bytes file) {
  struct Known {
    std::string_view begin;
    const char* what;
  };
  using namespace std::string_view_literals;
  static constexpr Known known[] = {
      {"\x1f\x8b"sv, "compressed by gzip; unpack it first (gunzip, or tar xzf for a .tar.gz)"},
      {"\xfd"
       "7zXZ\0"sv,
       "compressed by xz; unpack it first (unxz, or tar xJf for a .tar.xz)"},
      {"BZh"sv, "compressed by bzip2; unpack it first (bunzip2, or tar xjf for a .tar.bz2)"},
      {"\x28\xb5\x2f\xfd"sv, "compressed by Zstandard; unpack it first (unzstd)"},
      {"7z\xbc\xaf\x27\x1c"sv, "a 7-Zip archive; unpack it first (7z x)"},
      {"Rar!"sv, "a RAR archive; unpack it first (unrar x)"},
      {"\x89HDF\r\n\x1a\n"sv,
       "an HDF5 file (Keras or TensorFlow), not weights of PyTorch; read it in Python with h5py "
       "and "
       "write its arrays with safetensors.numpy.save_file"},
      {"\x93NUMPY"sv,
       "a NumPy array (.npy), not weights by name; write a dict of arrays with "
       "safetensors.numpy.save_file"},
      {"GGUF"sv,
       "a GGUF file (llama.cpp), which is not read; get the .safetensors of that network"},
      {"\x89PNG"sv, "a PNG image, not weights; are two arguments exchanged?"},
      {"\xff\xd8\xff"sv, "a JPEG image, not weights; are two arguments exchanged?"},
      {"GIF8"sv, "a GIF image, not weights; are two arguments exchanged?"},
      {"%PDF"sv, "a PDF document, not weights; give the file with the weights"},
      {"\x7f"
       "ELF"sv,
       "a program (ELF), not weights; give the file with the weights"}};
  const std::string_view bytes = as_text(file);
  for (const Known& k : known)
    if (bytes.starts_with(k.begin)) return k.what;
  if (bytes.size() >= 512 && bytes.substr(257, 5) == "ustar"sv)
    return "a tar archive: weights that PyTorch wrote before 2017, or a folder of files; unpack it "
           "with "
           "tar xf, or convert old weights in Python: torch.save(torch.load('OLD.pth', "
           "map_location='cpu', weights_only=False), 'NEW.pth') (only if you trust the file: this "
           "executes what is in it)";
  if (bytes.size() >= 8 && bytes.substr(4, 4) == "TFL3"sv)
    return "a TensorFlow Lite network, which is not read; get its weights as .safetensors";
  // ONNX: a protocol buffer that begins with field 1, the format's version, then names its
  // producer.
  if (bytes.size() >= 4 && bytes[0] == 8 && bytes[1] > 0 && bytes[1] < 32 &&
      (bytes[2] == 0x12 || bytes[2] == 0x3a))
    return "an ONNX network, not weights by PyTorch's names; get the .pth or .safetensors it was "
           "made "
           "from";
  if (std::string text = known_text(file); !text.empty()) return text;
  if (bytes.size() >= 2 && bytes[0] == '\x80' && bytes[1] <= 5)
    return "a pickle that torch.save did not write (of arrays or of a program's own classes); load "
           "it "
           "in Python, if you trust it, and write its tensors with torch.save";
  if (file.size() > 64 && std::all_of(file.begin(), file.end(), [](u8 b) { return b == 0; }))
    return "nothing but zeros, as a download or a copy leaves that did not finish; get it again";
  return "";
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
